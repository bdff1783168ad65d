"""The inbox: a user puts a pipeline's archives into a folder, and a sensor launches a run with them.

Dagster's daemon asks the code server every few seconds, and `Inbox.look` answers. `files.py` finds the sets of
archives, `digests.py` computes their digests, and `state.py` remembers which contents have had their run.
"""

import hashlib
import os
import re
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from bonseyes_dagster.orchestration.dagster_internals import RUN_KEY_TAG
from bonseyes_dagster.orchestration.inbox.digests import ArchiveChangedError, DigestReader
from bonseyes_dagster.orchestration.inbox.files import ArchiveSet, printable, read_sets
from bonseyes_dagster.orchestration.inbox.state import InboxState
from bonseyes_dagster.orchestration.pipeline import Pipeline
from bonseyes_dagster.orchestration.steps.readable_files import allow_folder
from bonseyes_dagster.tags import RUN_TAG
from bonseyes_dagster.urls import is_name

__all__ = ["inbox_sensor"]

VARIABLE = "BONSEYES_INBOX"
INTERVAL_S = 5
SETTLE_S = 4.0
# The daemon needs some 50 ms to launch a run. Its other work must not wait longer than a few seconds.
MOST_REQUESTS = 50
_MOST_REASONS = 20
_RUN_NAME_LENGTH = 64


def inbox_sensor(pipeline: Pipeline, *, folder: Path | None = None, settle_s: float = SETTLE_S) -> SensorDefinition:
    """Return a sensor that runs `pipeline` for each complete set of archives in `folder` (BONSEYES_INBOX by default).

    A set has one file for each required `file` parameter. The file's name begins with the parameter's
    (`train-images.gz` for `train-images`). A set is in the folder itself or in a subfolder; then the run gets the name
    of the subfolder. A set waits until two looks that are `settle_s` seconds apart find it unchanged. The same bytes
    start only one run, even if that run fails or is deleted.
    """
    inbox = Inbox(pipeline, folder, settle_s)
    if folder is not None:
        allow_folder(folder)

    @sensor(
        name=inbox.name,
        job=pipeline.job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING if inbox.root else DefaultSensorStatus.STOPPED,
        description=f"Runs {pipeline.name} for archives placed in {VARIABLE}: {', '.join(inbox.wanted)}.",
    )
    def look(context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        yield from inbox.look(context)

    return look


class Inbox:
    """One inbox of one pipeline. It remembers the sets and digests of this process's earlier looks."""

    def __init__(self, pipeline: Pipeline, folder: Path | None, settle_s: float) -> None:
        self.name = f"{pipeline.job_name}_inbox"
        self.wanted = [each.name for each in pipeline.parameters if each.type == "file" and each.required]
        self._folder = folder
        self._settle_s = settle_s
        self._digests = DigestReader()
        # The stamp of each set, and the time of the first look that found it, on the monotonic clock.
        self._seen: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> Path | None:
        """Return the folder; None when none is set."""
        if self._folder is not None:
            return self._folder
        return Path(os.environ[VARIABLE]).expanduser().absolute() if os.environ.get(VARIABLE) else None

    def look(self, context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        """Yield a request for each complete, unchanged and new set, or a reason if there is no such set."""
        root = self.root
        if root is None:
            yield SkipReason(f"Set {VARIABLE} to the folder that archives are placed in.")
            return
        shown = printable(str(root))
        if not root.is_dir():
            yield SkipReason(f"{VARIABLE}={shown} is not a folder.")
            return
        if shown != str(root):
            yield SkipReason(f"{VARIABLE}={shown} has a name that is not UTF-8; rename it.")
            return
        with self._lock:
            yield from self._look(root, context)

    def _look(self, root: Path, context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        try:
            sets = read_sets(root, self.wanted)
        except OSError as error:
            yield SkipReason(f"{VARIABLE}={root} cannot be read: {error.strerror}.")
            return
        instance = context.instance
        state = InboxState.load(instance, self.name)
        state.confirm(context.cursor, lambda digest: not _waits_for_launch(instance, digest))
        state.prune(each.name for each in sets)
        reasons = [f"{each.title} {each.problem}" for each in sets if each.problem]
        unchanged, changing = self._unchanged([each for each in sets if not each.problem])
        reasons += changing
        known, unread = self._digest(unchanged, state)
        reasons += unread
        requests, skipped = _requests(root, known, state, instance)
        reasons += skipped
        if requests:
            digests = {str(request.run_key): name for name, request in requests.items()}
            context.update_cursor(state.request(digests))
        state.save(instance, self.name)
        yield from requests.values()
        if not requests:
            yield SkipReason(_listed(reasons) or "Every set in the inbox has had its run.")
        elif reasons:  # Dagster accepts requests or a reason, not both
            context.log.info(_listed(reasons))

    def _unchanged(self, sets: Sequence[ArchiveSet]) -> tuple[list[ArchiveSet], list[str]]:
        """Return the sets that are unchanged for `settle_s` seconds, and a reason for each other set."""
        now_s = time.monotonic()
        former = self._seen
        self._seen = {}
        unchanged, changing = [], []
        for each in sets:
            stamp, since_s = former.get(each.name, ("", now_s))
            if stamp != each.stamp:
                since_s = now_s
            self._seen[each.name] = each.stamp, since_s
            if now_s - since_s >= self._settle_s:
                unchanged.append(each)
            else:
                changing.append(f"{each.title} is new or still changing")
        return unchanged, changing

    def _digest(self, sets: Sequence[ArchiveSet], state: InboxState) -> tuple[list[tuple[ArchiveSet, str]], list[str]]:
        """Return the sets whose digest is known, sorted by name, and a reason for each other set.

        Small sets are read first.
        """
        self._digests.begin_look(sets)
        found: dict[str, tuple[ArchiveSet, str]] = {}
        reasons = []
        for each in sorted(sets, key=lambda each: (each.size, each.name)):
            stamp, digest = state.folders.get(each.name, ("", ""))
            try:
                known = digest if stamp == each.stamp else self._digests.digest(each)
            except ArchiveChangedError:
                reasons.append(f"{each.title} is new or still changing")
                continue
            except OSError as error:
                file = printable(Path(str(error.filename)).name) if error.filename else "a file"
                reasons.append(f"{each.title} holds {file}, which cannot be read: {error.strerror}")
                continue
            if known is None:
                done = self._digests.done_bytes(each)
                reasons.append(f"{each.title} is being read: {done / 1e6:.0f} of {each.size / 1e6:.0f} MB")
                continue
            state.folders[each.name] = each.stamp, known
            self._digests.forget(each.files.values())
            found[each.name] = each, known
        return [found[name] for name in sorted(found)], reasons


def _requests(
    root: Path, known: Sequence[tuple[ArchiveSet, str]], state: InboxState, instance: DagsterInstance
) -> tuple[dict[str, RunRequest], list[str]]:
    """Return the requests by name of the set, and a reason for each set without a request."""
    requests: dict[str, RunRequest] = {}
    reasons = []
    requested: dict[str, str] = {}
    delayed = 0
    for each, digest in known:
        former = state.done.get(digest, requested.get(digest))
        if former is not None:
            if former != each.name:
                reasons.append(f"{each.title} holds the bytes of {printable(former) or 'the inbox itself'}, which ran")
        elif len(requests) >= MOST_REQUESTS:
            delayed += 1
        elif _ran_by_former_key(root, each, instance):
            state.done[digest] = each.name
        else:
            requested[digest] = each.name
            requests[each.name] = _request(each, digest)
    if delayed:
        reasons.append(f"{delayed} more sets wait for the next look")
    return requests, reasons


def _request(archives: ArchiveSet, digest: str) -> RunRequest:
    return RunRequest(
        run_key=digest,
        run_config={parameter: file.path for parameter, file in archives.files.items()},
        tags={RUN_TAG: _run_name(archives.name, digest)},
    )


def _run_name(folder: str, digest: str) -> str:
    """Return the folder's name; if no run can have that name, its plain letters and a digest of the whole name."""
    if is_name(folder) and len(folder) <= _RUN_NAME_LENGTH:
        return folder
    letters = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", letters).strip("-_")[: _RUN_NAME_LENGTH - 9]
    suffix = hashlib.sha256(folder.encode()).hexdigest()[:8] if folder else digest[:8]
    return f"{plain or 'inbox'}-{suffix}"


def _waits_for_launch(instance: DagsterInstance, digest: str) -> bool:
    """Tell whether a content's run was created but not launched; a second request makes Dagster launch it."""
    filters = RunsFilter(tags={RUN_KEY_TAG: digest}, statuses=[DagsterRunStatus.NOT_STARTED])
    return bool(instance.get_run_ids(filters, limit=1))


def _ran_by_former_key(root: Path, archives: ArchiveSet, instance: DagsterInstance) -> bool:
    """Tell whether an earlier version launched a run for these files: its run keys had the files' times, not bytes."""
    key = hashlib.sha256()
    for name, file in sorted(archives.files.items()):
        _, size, mtime_ns, _ = file.stamp
        key.update(f"{name} {root / archives.name / Path(file.path).name} {size} {mtime_ns}\n".encode())
    return bool(instance.get_run_ids(RunsFilter(tags={RUN_KEY_TAG: key.hexdigest()}), limit=1))


def _listed(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    listed = [*reasons[:_MOST_REASONS], *([f"and {more} more"] if more > 0 else [])]
    return f"{'; '.join(listed)}." if listed else ""
