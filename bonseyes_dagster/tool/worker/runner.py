"""Make one artifact, from its claimed row to its final one: child process, cancellation, publication, clean-up.

The worker calls `Runner.run` for each row from the queue.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import psutil

from bonseyes_dagster.errors import BonseyesError, StorageFullError, ToolError, UnavailableError
from bonseyes_dagster.model import Manifest, Phase, now
from bonseyes_dagster.system.replacing import replace_file
from bonseyes_dagster.system.storage import is_full, sync_folder
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index, IndexDamagedError
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.artifacts.logs import LogLimit, append_note
from bonseyes_dagster.tool.artifacts.metrics import skipped_lines
from bonseyes_dagster.tool.artifacts.progress import read_progress
from bonseyes_dagster.tool.artifacts.publishing import StoppedError, publish
from bonseyes_dagster.tool.artifacts.reuse import adopt_newest
from bonseyes_dagster.tool.artifacts.row_copies import write_row_copy
from bonseyes_dagster.tool.code.fingerprint import fingerprint
from bonseyes_dagster.tool.code.watch import CodeWatch
from bonseyes_dagster.tool.files.disk import is_own_folder, remove, sync_all, throw_away
from bonseyes_dagster.tool.files.given_files import GivenFiles
from bonseyes_dagster.tool.worker.bell import Bell
from bonseyes_dagster.tool.worker.child import ToolRuntime
from bonseyes_dagster.tool.worker.descendants import EndedProcesses, end_below, end_descendants, is_reaped
from bonseyes_dagster.tool.worker.processes import SERVER_VARIABLE, holds, signal_group
from bonseyes_dagster.tool.worker.signals import Wakeups
from bonseyes_dagster.tool.worker.spare import Spare

__all__ = ["Outcome", "Runner", "clear_leftovers"]

_log = logging.getLogger(__name__)
CANCEL_GRACE_S = 10.0
STOP_GRACE_S = 5.0
# Between two checks a log may grow beyond its limit.
_LOOK_EVERY_S = 1.0
_RETRY_EVERY_S = 0.5
_NEVER_REUSED = "This artifact is never re-used for an equal request."


@dataclass(frozen=True, slots=True)
class Outcome:
    """A final phase, and the columns that go with it."""

    phase: Phase
    reason: str | None
    values: dict[str, Any]


class Runner:
    """Makes one artifact at a time."""

    def __init__(
        self, runtime: ToolRuntime, index: Index, wakeups: Wakeups, inherited: Collection[int], code: CodeWatch
    ) -> None:
        self._runtime = runtime
        self._code = code
        self._volume = runtime.volume
        self._index = index
        self._wakeups = wakeups
        # Processes that the tool's code started when it was loaded stay.
        self._helpers = tuple(child.pid for child in psutil.Process().children())
        # A process that survives SIGKILL fails the artifact that started it, not later ones.
        self._survivors: set[int] = set()
        # Files that were open before the tool's code was loaded belong to the server; children close them.
        self._inherited = inherited
        self._final_bell = Bell(self._volume.final_bell)
        self._spare: Spare | None = None

    def prepare(self) -> None:
        """Fork the child for the next artifact in advance."""
        if self._spare is None:
            self._spare = Spare(self._runtime, self._inherited)

    def close(self) -> None:
        """End the waiting child."""
        if self._spare is not None:
            self._spare.end()
            self._spare = None

    def run(self, row: ArtifactRow) -> None:
        """Make the artifact of the running `row`; afterwards its row is final, or removed if it was deleted."""
        row, values = self._with_current_version(row)
        outcome = self._attempt(row)
        clear_leftovers(self._volume.folder(row.id), is_completed=outcome.phase == "completed")
        self._finish(row, replace(outcome, values={**values, **outcome.values}))

    def _with_current_version(self, row: ArtifactRow) -> tuple[ArtifactRow, dict[str, Any]]:
        """Return the row with the tool's current version, and the changed columns: it may be older than a restart."""
        tool = self._runtime.description
        if row.version == tool.version:
            return row, {}
        wanted_fingerprint = fingerprint(tool, row.parameters, row.files, row.inputs)
        values: dict[str, Any] = {"tool": tool.name, "version": tool.version, "fingerprint": wanted_fingerprint}
        return replace(row, **values), values

    def fail(self, row: ArtifactRow, error: Exception) -> None:
        """Set `row` to failed after an error of the container, so that it does not run for ever."""
        try:
            clear_leftovers(self._volume.folder(row.id), is_completed=False)
        except Exception:  # despite any error, the row must not run for ever
            _log.exception("The folder of the artifact %s cannot be cleared.", row.name)
        self._finish(row, Outcome("failed", f"The container failed: {error}", {}))

    def _attempt(self, row: ArtifactRow, *, is_fetched: bool = False) -> Outcome:
        folder = self._volume.folder(row.id)
        try:
            if row.reuse and row.fingerprint and not is_fetched:
                taken = self._reuse(row, Outcome("completed", None, {}), row.fingerprint)
                if taken is not None:
                    return taken
            self._make_folders(folder)
            outcome = self._run_child(row, is_fetched=is_fetched)
            is_fetched_only = outcome.values.pop("is_fetched_only", False)
            if outcome.phase != "completed":
                return outcome
            if is_fetched_only:
                return self._reuse_or_make(row, outcome)
            return self._publish(row, folder, outcome)
        except StoppedError:
            return self._stopped()
        except ToolError as error:
            return Outcome("failed", error.message, {})
        except OSError as error:
            reason = "The volume is full." if is_full(error) else f"The container failed: {error.strerror or error}."
            return Outcome("failed", reason, {})
        finally:
            self._end_all(folder)

    def _make_folders(self, folder: Folder) -> None:
        folder.path.mkdir(exist_ok=True)
        folder.staging.mkdir()
        folder.log.touch()
        replace_file(folder.process, json.dumps({"server": os.environ.get(SERVER_VARIABLE)}).encode())

    # The child

    def _run_child(self, row: ArtifactRow, *, is_fetched: bool) -> Outcome:
        child = self._take_spare()
        difference = self._note_difference(row)
        try:
            # If the request allows re-use, the child ends once it has fetched all URLs.
            child.start(replace(row, reuse=False) if is_fetched else row)
            # Sync the claim and the folder while the child works.
            sync_all([self._volume.artifacts, self._index.log_file()])
            log = LogLimit(self._volume.folder(row.id).log, self._runtime.settings.log_limit_bytes)
            why, status = self._wait(child.pid, row.id, log)
        finally:
            report = child.report()
        ending = self._end_all(self._volume.folder(row.id))
        log.enforce()
        self._note_skipped_lines(row)
        outcome = _without_survivors(self._outcome_of(why, status, report), ending)
        # Check the code only now: processes that the tool left behind ran its code, too.
        if report.get("is_fetched_only") or not self._is_code_changed(row, difference):
            return outcome
        return replace(outcome, values={**outcome.values, "code_changed": True})

    def _end_all(self, folder: Folder) -> EndedProcesses:
        """End all processes that the artifact has started, in any session, before its files are digested.

        They get no time to finish: files that they write after the end of the tool are no output.
        """
        self._survivors = {pid for pid in self._survivors if not is_reaped(pid)}
        spare = [self._spare.pid] if self._spare is not None else []
        ending = end_descendants([*self._helpers, *self._survivors, *spare])
        if self._helpers:
            # A fork server from the loading of the tool's code starts processes, which are its children and not ours.
            places = folder.path.resolve(), folder.temporary.resolve()
            borrowed = end_below(self._helpers, lambda pid: holds(pid, *places))
            ending = EndedProcesses(ending.ended | borrowed.ended, ending.survivors | borrowed.survivors)
        self._survivors |= ending.survivors.keys()
        _log_ended_processes(folder, ending)
        return ending

    def _note_skipped_lines(self, row: ArtifactRow) -> None:
        """Note in the log, once per metric, which lines of a program are no points."""
        if self._runtime.tool.command:
            folder = self._volume.folder(row.id)
            with contextlib.suppress(OSError):
                for sentence in skipped_lines(folder.metrics):
                    append_note(folder.log, sentence)

    def _note_difference(self, row: ArtifactRow) -> str | None:
        """Check the tool's code before it runs; return and log how it differs from the code of the version."""
        difference = self._code.begin()
        # While a URL is not fetched yet, the tool may not have to run at all.
        if difference and not (row.reuse and row.fingerprint is None):
            append_note(self._volume.folder(row.id).log, f"{difference} {_NEVER_REUSED}")
        return difference

    def _is_code_changed(self, row: ArtifactRow, difference: str | None) -> bool:
        """Check the tool's code after it ran; tell and log whether other code than the version's may have run."""
        meanwhile = self._code.end()
        if meanwhile and not difference:
            append_note(self._volume.folder(row.id).log, f"{meanwhile} {_NEVER_REUSED}")
        return bool(difference or meanwhile)

    def _take_spare(self) -> Spare:
        spare, self._spare = self._spare, None
        if spare is not None and spare.is_alive():
            return spare
        if spare is not None:
            spare.end()
        return Spare(self._runtime, self._inherited)

    def _wait(self, pid: int, artifact_id: str, log: LogLimit) -> tuple[Phase | None, int]:
        """Wait for the child and limit its log; return the phase if we ended it, else None, and its exit status."""
        why: Phase | None = None
        deadline = 0.0
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            log.enforce()
            if why is None and (why := self._phase_to_end_with(artifact_id)):
                deadline = time.monotonic() + (CANCEL_GRACE_S if why == "cancelled" else STOP_GRACE_S)
                signal_group(pid, signal.SIGTERM)
                # A stopped process does not handle SIGTERM.
                signal_group(pid, signal.SIGCONT)
            left_s = deadline - time.monotonic() if why else _LOOK_EVERY_S
            if left_s <= 0:
                signal_group(pid, signal.SIGKILL)
                left_s = _RETRY_EVERY_S
            self._wakeups.wait(left_s)
        if why is not None:
            _wait_for_group(pid, deadline)
        return why, status

    def _phase_to_end_with(self, artifact_id: str) -> Phase | None:
        if self._wakeups.is_stopping:
            return "interrupted"
        with contextlib.suppress(UnavailableError, StorageFullError):
            if self._index.is_cancelling(artifact_id):
                return "cancelled"
        return None

    def _outcome_of(self, why: Phase | None, status: int, report: dict[str, Any]) -> Outcome:
        values = {key: report[key] for key in ("files", "fingerprint", "is_fetched_only") if report.get(key)}
        if report.get("is_uncovered"):
            values["fingerprint"] = None
        if why is not None:
            return Outcome(why, _REASONS[why], values)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return Outcome("completed", None, values)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            # The tool did not fail, somebody killed it: the client may want to create the artifact again.
            return Outcome("interrupted", _exit_reason(status), values)
        return Outcome("failed", report.get("reason") or _exit_reason(status), values)

    def _stopped(self) -> Outcome:
        phase: Phase = "interrupted" if self._wakeups.is_stopping else "cancelled"
        return Outcome(phase, _REASONS[phase], {})

    # The result

    def _publish(self, row: ArtifactRow, folder: Folder, outcome: Outcome) -> Outcome:
        if self._index.is_cancelling(row.id):
            raise StoppedError
        GivenFiles(folder.given_files).check()
        # The row and its copy get the same values.
        values = {**outcome.values, "finished": now()}

        def row_of(manifest: Manifest) -> ArtifactRow:
            values.update(size=manifest.size, digest=manifest.digest)
            return self._final_row(row, replace(outcome, values=values))

        publish(folder, self._check(row.id), row_of, files_limit=self._runtime.settings.files_limit)
        return replace(outcome, values=values)

    def _final_row(self, row: ArtifactRow, outcome: Outcome) -> ArtifactRow:
        """Return the final row."""
        values = self._columns(row, outcome)
        return replace(row, phase=outcome.phase, reason=outcome.reason, is_cancelling=False, **values)

    def _columns(self, row: ArtifactRow, outcome: Outcome) -> dict[str, Any]:
        """Return the columns of a final row except phase and reason."""
        values = {"finished": now(), **outcome.values}
        if "files" in values:
            values["files"] = {**row.files, **values["files"]}
        values["progress"] = read_progress(self._volume.folder(row.id).progress)
        return values

    def _check(self, artifact_id: str) -> Callable[[], None]:
        def check() -> None:
            if self._wakeups.is_stopping or (self._wakeups.has_rung() and self._index.is_cancelling(artifact_id)):
                raise StoppedError

        return check

    def _reuse(self, row: ArtifactRow, outcome: Outcome, wanted_fingerprint: str) -> Outcome | None:
        """Link the files of an artifact with the fingerprint `wanted_fingerprint`; return None if there is none.

        So equal artifacts in the queue are made once: the first is completed when the worker claims the second.
        """
        if self._index.is_cancelling(row.id):
            raise StoppedError
        folder = self._volume.folder(row.id)
        folder.path.mkdir(exist_ok=True)
        values = {**outcome.values, "finished": now()}

        def row_of(source: ArtifactRow) -> ArtifactRow:
            values.update(size=source.size, digest=source.digest, reused_from=source.name)
            # The progress file is not linked yet.
            return replace(self._final_row(row, replace(outcome, values=values)), progress=source.progress)

        check = self._check(row.id)
        if adopt_newest(self._index, self._volume, wanted_fingerprint, folder, row_of, check=check) is None:
            return None
        sync_folder(self._volume.artifacts)
        return replace(outcome, values=values)

    def _reuse_or_make(self, row: ArtifactRow, outcome: Outcome) -> Outcome:
        """With all URLs fetched, link the files of an equal artifact, or make this one if there is none."""
        taken = self._reuse(row, outcome, outcome.values["fingerprint"])
        if taken is not None:
            return taken
        files = {**row.files, **outcome.values["files"]}
        clear_leftovers(self._volume.folder(row.id), is_completed=False)
        wanted_fingerprint = outcome.values["fingerprint"]
        made = self._attempt(replace(row, files=files, fingerprint=wanted_fingerprint), is_fetched=True)
        return replace(made, values={**outcome.values, **made.values})

    def _finish(self, row: ArtifactRow, outcome: Outcome) -> None:
        """Write the final phase, and retry until the disk takes it; remove the artifact if it was deleted meanwhile."""
        values = self._columns(row, outcome)
        if outcome.phase != "completed":
            self._write_copy(row, replace(outcome, values=values))
        while True:
            try:
                self._index.finish(row.id, outcome.phase, reason=outcome.reason, **values)
                if self._index.is_deleted(row.id):
                    throw_away(self._volume.folder(row.id).path, self._volume.trash)
                    # Remove the folder first: a folder without a row would be kept.
                    sync_all([self._volume.artifacts, self._volume.trash])
                    self._index.remove(row.id)
                break
            except IndexDamagedError:
                raise
            except (BonseyesError, OSError) as error:
                if self._wakeups.is_stopping:
                    raise
                _log.error("The end of the artifact %s cannot be written to the index yet: %s", row.name, error)
                time.sleep(_RETRY_EVERY_S)
        self._final_bell.ring()

    def _write_copy(self, row: ArtifactRow, outcome: Outcome) -> None:
        """Write the copy of a row without data beside its log. It is neither synced nor needed."""
        with contextlib.suppress(OSError):
            write_row_copy(self._volume.folder(row.id), self._final_row(row, outcome))


_REASONS: dict[str, str] = {
    "interrupted": "The server was stopped while it ran.",
    "cancelled": "Cancelled while it ran.",
}


def clear_leftovers(folder: Folder, *, is_completed: bool) -> None:
    """Remove the files and folders that a final artifact does not need."""
    parts = [folder.artifacts, folder.staging]
    if is_own_folder(folder.temporary):
        parts.append(folder.temporary)
    if not is_completed:
        parts.append(folder.data)
    for part in parts:
        if part.is_dir() and not part.is_symlink():
            remove(part)
        else:
            part.unlink(missing_ok=True)
    gone = () if is_completed else (folder.manifest, folder.row_copy, folder.file_states)
    for file in (folder.process, folder.parameters, folder.given_files, *gone):
        file.unlink(missing_ok=True)


def _without_survivors(outcome: Outcome, ending: EndedProcesses) -> Outcome:
    """Return `outcome`; a success becomes a failure if processes have survived."""
    reason = ending.reason()
    if reason is None or outcome.phase != "completed":
        return outcome
    return Outcome("failed", reason, outcome.values)


def _log_ended_processes(folder: Folder, ending: EndedProcesses) -> None:
    """Note ended processes in the artifact's log, and survivors in the container's log."""
    if ending.ended:
        append_note(folder.log, f"Ended {ending} that the tool left behind.")
    if reason := ending.reason():
        _log.error("The processes of the artifact with the id %s do not end. %s", folder.id, reason)


def _wait_for_group(pid: int, deadline: float) -> None:
    """Wait until `deadline` for the rest of a process group that has got SIGTERM."""
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            # Orphans of the group have become our children.
            os.waitpid(-pid, os.WNOHANG)
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def _exit_reason(status: int) -> str:
    """Return how a process ended, for a process without a report."""
    if not os.WIFSIGNALED(status):
        return f"The tool exited with status {os.waitstatus_to_exitcode(status)}; its log may tell why."
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return f"The tool was ended by {name}: was it out of memory?"
    return f"The tool was ended by {name}; its log may tell where."
