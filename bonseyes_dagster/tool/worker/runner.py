"""From a claimed row to a final one: folders, child process, cancellation, publication, and what is left cleaned up."""

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
from bonseyes_dagster.tool.files.disk import (
    is_full,
    is_own_folder,
    remove,
    replace_file,
    sync_all,
    sync_folder,
    throw_away,
)
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
# So much of a log that grows without end lies on the disk meanwhile.
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
        # What the tool's code started when it was loaded is left alone.
        self._helpers = tuple(child.pid for child in psutil.Process().children())
        # A process that no signal ends fails the artifact that started it, not those that follow.
        self._survivors: set[int] = set()
        # What was open before it was loaded is the server's, and closed in children.
        self._inherited = inherited
        self._final_bell = Bell(self._volume.final_bell)
        self._spare: Spare | None = None

    def prepare(self) -> None:
        """Fork the child for the next artifact, while there is time."""
        if self._spare is None:
            self._spare = Spare(self._runtime, self._inherited)

    def close(self) -> None:
        """End the child that waits."""
        if self._spare is not None:
            self._spare.end()
            self._spare = None

    def run(self, row: ArtifactRow) -> None:
        """Make the artifact of `row`, whose row is running; its row is final, or gone, when this returns."""
        row, values = self._of_this_version(row)
        outcome = self._attempt(row)
        clear_leftovers(self._volume.folder(row.id), is_completed=outcome.phase == "completed")
        self._settle(row, replace(outcome, values={**values, **outcome.values}))

    def _of_this_version(self, row: ArtifactRow) -> tuple[ArtifactRow, dict[str, Any]]:
        """Return the row of what will be made, and what changes in its row: it may have waited through a restart."""
        tool = self._runtime.description
        if row.version == tool.version:
            return row, {}
        mark = fingerprint(tool, row.parameters, row.files, row.inputs)
        values: dict[str, Any] = {"tool": tool.name, "version": tool.version, "fingerprint": mark}
        return replace(row, **values), values

    def abandon(self, row: ArtifactRow, error: Exception) -> None:
        """Make a row final whose artifact failed by a fault of ours, so that it does not run for ever."""
        try:
            clear_leftovers(self._volume.folder(row.id), is_completed=False)
        except Exception:  # whatever it is, the row must not run for ever
            _log.exception("%s: its folder cannot be cleared", row.name)
        self._settle(row, Outcome("failed", f"The container failed: {error}", {}))

    def _attempt(self, row: ArtifactRow, *, is_fetched: bool = False) -> Outcome:
        folder = self._volume.folder(row.id)
        try:
            if row.reuse and row.fingerprint and not is_fetched:
                taken = self._take_over(row, Outcome("completed", None, {}), row.fingerprint)
                if taken is not None:
                    return taken
            self._make_folders(folder)
            outcome = self._supervise(row, is_fetched=is_fetched)
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

    def _supervise(self, row: ArtifactRow, *, is_fetched: bool) -> Outcome:
        child = self._take_spare()
        difference = self._note_difference(row)
        try:
            # A child that may re-use ends when it has fetched all URLs.
            child.start(replace(row, reuse=False) if is_fetched else row)
            # That it runs becomes durable, and its folder does, while it works.
            sync_all([self._volume.artifacts, self._index.log_file()])
            log = LogLimit(self._volume.folder(row.id).log, self._runtime.settings.log_limit_bytes)
            why, status = self._wait(child.pid, row.id, log)
        finally:
            report = child.report()
        ending = self._end_all(self._volume.folder(row.id))
        log.end()
        self._note_skipped_lines(row)
        outcome = _without_survivors(self._judge(why, status, report), ending)
        # Only now: what the tool left behind ran its code, too.
        if report.get("is_fetched_only") or not self._is_code_changed(row, difference):
            return outcome
        return replace(outcome, values={**outcome.values, "code_changed": True})

    def _end_all(self, folder: Folder) -> EndedProcesses:
        """End all that the artifact has started, in whatever session, before anything of it is digested.

        At once: what it writes after the tool has ended is no output any more.
        """
        self._survivors = {pid for pid in self._survivors if not is_reaped(pid)}
        spare = [self._spare.pid] if self._spare is not None else []
        ending = end_descendants([*self._helpers, *self._survivors, *spare])
        if self._helpers:
            # A fork server that was started when the tool's code was loaded is nobody's child but ours.
            places = folder.path.resolve(), folder.temporary.resolve()
            borrowed = end_below(self._helpers, lambda pid: holds(pid, *places))
            ending = EndedProcesses(ending.ended | borrowed.ended, ending.survivors | borrowed.survivors)
        self._survivors |= ending.survivors.keys()
        _tell(folder, ending)
        return ending

    def _note_skipped_lines(self, row: ArtifactRow) -> None:
        """Say in the log, once, which lines of a program's metrics are no points."""
        if self._runtime.tool.command:
            folder = self._volume.folder(row.id)
            with contextlib.suppress(OSError):
                for sentence in skipped_lines(folder.metrics):
                    append_note(folder.log, sentence)

    def _note_difference(self, row: ArtifactRow) -> str | None:
        """Look at the tool's code before it runs; return, and log, in what it is not that of the version."""
        difference = self._code.begin()
        # While a URL is not fetched, the tool may not have to run at all.
        if difference and not (row.reuse and row.fingerprint is None):
            append_note(self._volume.folder(row.id).log, f"{difference} {_NEVER_REUSED}")
        return difference

    def _is_code_changed(self, row: ArtifactRow, difference: str | None) -> bool:
        """Look at the tool's code after it ran; tell, and log, whether it is sure that what ran was the version."""
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
        """Wait for the child, and keep its log short; return why it was ended, if it was, and its status."""
        why: Phase | None = None
        deadline = 0.0
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            log.look()
            if why is None and (why := self._why_end(artifact_id)):
                deadline = time.monotonic() + (CANCEL_GRACE_S if why == "cancelled" else STOP_GRACE_S)
                signal_group(pid, signal.SIGTERM)
                # One that is stopped can take no TERM.
                signal_group(pid, signal.SIGCONT)
            left_s = deadline - time.monotonic() if why else _LOOK_EVERY_S
            if left_s <= 0:
                signal_group(pid, signal.SIGKILL)
                left_s = _RETRY_EVERY_S
            self._wakeups.wait(left_s)
        if why is not None:
            _let_end(pid, deadline)
        return why, status

    def _why_end(self, artifact_id: str) -> Phase | None:
        if self._wakeups.is_stopping:
            return "interrupted"
        with contextlib.suppress(UnavailableError, StorageFullError):
            if self._index.is_cancelling(artifact_id):
                return "cancelled"
        return None

    def _judge(self, why: Phase | None, status: int, report: dict[str, Any]) -> Outcome:
        values = {key: report[key] for key in ("files", "fingerprint", "is_fetched_only") if report.get(key)}
        if report.get("is_uncovered"):
            values["fingerprint"] = None
        if why is not None:
            return Outcome(why, _REASONS[why], values)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return Outcome("completed", None, values)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            # The tool did not fail, somebody ended it: whoever ordered the artifact may want it made again.
            return Outcome("interrupted", _ending(status), values)
        return Outcome("failed", report.get("reason") or _ending(status), values)

    def _stopped(self) -> Outcome:
        phase: Phase = "interrupted" if self._wakeups.is_stopping else "cancelled"
        return Outcome(phase, _REASONS[phase], {})

    # The result

    def _publish(self, row: ArtifactRow, folder: Folder, outcome: Outcome) -> Outcome:
        if self._index.is_cancelling(row.id):
            raise StoppedError
        GivenFiles(folder.given_files).check()
        # The row and its copy beside the data are the same.
        values = {**outcome.values, "finished": now()}

        def row_of(manifest: Manifest) -> ArtifactRow:
            values.update(size=manifest.size, digest=manifest.digest)
            return self._finished(row, replace(outcome, values=values))

        publish(folder, self._check(row.id), row_of, files_limit=self._runtime.settings.files_limit)
        return replace(outcome, values=values)

    def _finished(self, row: ArtifactRow, outcome: Outcome) -> ArtifactRow:
        """Return the row as it will be once it is settled."""
        values = self._columns(row, outcome)
        return replace(row, phase=outcome.phase, reason=outcome.reason, is_cancelling=False, **values)

    def _columns(self, row: ArtifactRow, outcome: Outcome) -> dict[str, Any]:
        """Return what a final row has beside phase and reason."""
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

    def _take_over(self, row: ArtifactRow, outcome: Outcome, mark: str) -> Outcome | None:
        """Take over the files of an artifact with the fingerprint `mark`; None when there is none.

        Equal ones that waited together are thereby made once: the first is completed when the second one's turn comes.
        """
        if self._index.is_cancelling(row.id):
            raise StoppedError
        folder = self._volume.folder(row.id)
        folder.path.mkdir(exist_ok=True)
        values = {**outcome.values, "finished": now()}

        def row_of(source: ArtifactRow) -> ArtifactRow:
            values.update(size=source.size, digest=source.digest, reused_from=source.name)
            # The file of the progress is not linked yet.
            return replace(self._finished(row, replace(outcome, values=values)), progress=source.progress)

        check = self._check(row.id)
        if adopt_newest(self._index, self._volume, mark, folder, row_of, check=check) is None:
            return None
        sync_folder(self._volume.artifacts)
        return replace(outcome, values=values)

    def _reuse_or_make(self, row: ArtifactRow, outcome: Outcome) -> Outcome:
        """With all URLs fetched: take over the files of an artifact that is the same, or make this one after all."""
        taken = self._take_over(row, outcome, outcome.values["fingerprint"])
        if taken is not None:
            return taken
        files = {**row.files, **outcome.values["files"]}
        clear_leftovers(self._volume.folder(row.id), is_completed=False)
        mark = outcome.values["fingerprint"]
        made = self._attempt(replace(row, files=files, fingerprint=mark), is_fetched=True)
        return replace(made, values={**outcome.values, **made.values})

    def _settle(self, row: ArtifactRow, outcome: Outcome) -> None:
        """Write the final phase, however long the disk makes us wait for it; remove what was deleted meanwhile."""
        values = self._columns(row, outcome)
        if outcome.phase != "completed":
            self._keep_row(row, replace(outcome, values=values))
        while True:
            try:
                self._index.finish(row.id, outcome.phase, reason=outcome.reason, **values)
                if self._index.is_hidden(row.id):
                    throw_away(self._volume.folder(row.id).path, self._volume.trash)
                    # The folder first: one without a row is kept.
                    sync_all([self._volume.artifacts, self._volume.trash])
                    self._index.remove(row.id)
                break
            except IndexDamagedError:
                raise
            except (BonseyesError, OSError) as error:
                if self._wakeups.is_stopping:
                    raise
                _log.error("%s: its end cannot be recorded: %s", row.name, error)
                time.sleep(_RETRY_EVERY_S)
        self._final_bell.ring()

    def _keep_row(self, row: ArtifactRow, outcome: Outcome) -> None:
        """Put the copy of the row beside the log, which tells why it has no data; not synced, and not needed."""
        with contextlib.suppress(OSError):
            write_row_copy(self._volume.folder(row.id), self._finished(row, outcome))


_REASONS: dict[str, str] = {
    "interrupted": "The server was stopped while it ran.",
    "cancelled": "Cancelled while it ran.",
}


def clear_leftovers(folder: Folder, *, is_completed: bool) -> None:
    """Remove what is of no use once an artifact is final."""
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
    """Return `outcome`, or the failure that processes which do not end make of a success."""
    reason = ending.reason()
    if reason is None or outcome.phase != "completed":
        return outcome
    return Outcome("failed", reason, outcome.values)


def _tell(folder: Folder, ending: EndedProcesses) -> None:
    """Say in the artifact's log, and for what survives in the container's, what the tool has left behind."""
    if ending.ended:
        append_note(folder.log, f"Ended {ending} that the tool left behind.")
    if reason := ending.reason():
        _log.error("%s: %s", folder.id, reason)


def _let_end(pid: int, deadline: float) -> None:
    """Give the rest of a group that was sent TERM its time, too."""
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            # Those whose parents are gone became ours.
            os.waitpid(-pid, os.WNOHANG)
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def _ending(status: int) -> str:
    """Say how a process ended that told nothing."""
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
