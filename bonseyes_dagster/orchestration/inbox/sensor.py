"""A folder that starts runs: put a pipeline's archives there, and its sensor launches a run of them.

Dagster's daemon asks the code server every few seconds; `Inbox.look` answers. `inbox_files.py` finds the sets,
`inbox_digests.py` reads them, `inbox_state.py` remembers which contents have had their run.
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
# Launching costs the daemon some 50 ms each; its other work must not wait longer than a few seconds.
MOST_REQUESTS = 50
_MOST_REASONS = 20
_RUN_NAME_LENGTH = 64


def inbox_sensor(pipeline: Pipeline, *, folder: Path | None = None, settle_s: float = SETTLE_S) -> SensorDefinition:
    """Return a sensor that runs `pipeline` for each complete set of archives in `folder` (BONSEYES_INBOX by default).

    A set is one file for each required `file` parameter, called after it (`train-images.gz` for `train-images`), in the
    folder itself or in one of its subfolders, whose name the run then takes. A set waits until two looks that are
    `settle_s` seconds apart find it unchanged. The same bytes start one run only, whatever becomes of the run.
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
    """One inbox of one pipeline; the process keeps what it has seen and read since it started."""

    def __init__(self, pipeline: Pipeline, folder: Path | None, settle_s: float) -> None:
        self.name = f"{pipeline.job_name}_inbox"
        self.wanted = [each.name for each in pipeline.parameters if each.type == "file" and each.required]
        self._folder = folder
        self._settle_s = settle_s
        self._digests = DigestReader()
        # The stamp of each set, and when it was first seen, on the clock of this process.
        self._seen: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    @property
    def root(self) -> Path | None:
        """Return the folder; None when there is none."""
        if self._folder is not None:
            return self._folder
        return Path(os.environ[VARIABLE]).expanduser().absolute() if os.environ.get(VARIABLE) else None

    def look(self, context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        """Yield a request for each set that is complete, rests and is new, or else why there is none."""
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
        rested, changing = self._rested([each for each in sets if not each.problem])
        reasons += changing
        known, reading = self._digest(rested, state)
        reasons += reading
        requests, told = _requests(root, known, state, instance)
        reasons += told
        if requests:
            digests = {str(request.run_key): name for name, request in requests.items()}
            context.update_cursor(state.request(digests))
        state.save(instance, self.name)
        yield from requests.values()
        if not requests:
            yield SkipReason(_listed(reasons) or "Every set in the inbox has had its run.")
        elif reasons:  # Dagster takes requests or a reason, not both
            context.log.info(_listed(reasons))

    def _rested(self, sets: Sequence[ArchiveSet]) -> tuple[list[ArchiveSet], list[str]]:
        """Return the sets that have not changed since an earlier look, and a reason for each other one."""
        now_s = time.monotonic()
        former = self._seen
        self._seen = {}
        rested, changing = [], []
        for each in sets:
            stamp, since_s = former.get(each.name, ("", now_s))
            if stamp != each.stamp:
                since_s = now_s
            self._seen[each.name] = each.stamp, since_s
            if now_s - since_s >= self._settle_s:
                rested.append(each)
            else:
                changing.append(f"{each.title} is new or still changing")
        return rested, changing

    def _digest(self, sets: Sequence[ArchiveSet], state: InboxState) -> tuple[list[tuple[ArchiveSet, str]], list[str]]:
        """Return the sets whose bytes are known, by name, and a reason for each other one; read small ones first."""
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
    """Return the requests by the set's name, and a reason for each set that has none."""
    requests: dict[str, RunRequest] = {}
    reasons = []
    asked: dict[str, str] = {}
    delayed = 0
    for each, digest in known:
        former = state.done.get(digest, asked.get(digest))
        if former is not None:
            if former != each.name:
                reasons.append(f"{each.title} holds the bytes of {printable(former) or 'the inbox itself'}, which ran")
        elif len(requests) >= MOST_REQUESTS:
            delayed += 1
        elif _ran_by_former_key(root, each, instance):
            state.done[digest] = each.name
        else:
            asked[digest] = each.name
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
    """Return the folder's name, or, where a run cannot have it, the readable part of it with a digest of the whole."""
    if is_name(folder) and len(folder) <= _RUN_NAME_LENGTH:
        return folder
    letters = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", letters).strip("-_")[: _RUN_NAME_LENGTH - 9]
    suffix = hashlib.sha256(folder.encode()).hexdigest()[:8] if folder else digest[:8]
    return f"{plain or 'inbox'}-{suffix}"


def _waits_for_launch(instance: DagsterInstance, digest: str) -> bool:
    """Tell whether a content's run was created and then not launched: asked for again, Dagster launches it."""
    filters = RunsFilter(tags={RUN_KEY_TAG: digest}, statuses=[DagsterRunStatus.NOT_STARTED])
    return bool(instance.get_run_ids(filters, limit=1))


def _ran_by_former_key(root: Path, archives: ArchiveSet, instance: DagsterInstance) -> bool:
    """Tell whether a run was made of these files when runs were known by the files' times instead of their bytes."""
    key = hashlib.sha256()
    for name, file in sorted(archives.files.items()):
        _, size, mtime_ns, _ = file.stamp
        key.update(f"{name} {root / archives.name / Path(file.path).name} {size} {mtime_ns}\n".encode())
    return bool(instance.get_run_ids(RunsFilter(tags={RUN_KEY_TAG: key.hexdigest()}), limit=1))


def _listed(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    listed = [*reasons[:_MOST_REASONS], *([f"and {more} more"] if more > 0 else [])]
    return f"{'; '.join(listed)}." if listed else ""
