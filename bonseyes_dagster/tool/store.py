"""The artifacts of a tool container: it answers the uniform routes from the index and the folders."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, BinaryIO, cast, get_args

from bonseyes_dagster.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    NotReadyError,
    StorageFullError,
    UnavailableError,
)
from bonseyes_dagster.model import TERMINAL_PHASES, FileEntry, Manifest, Phase, Status, ToolDescription, now
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.storage import check_reserve, storage_errors
from bonseyes_dagster.tool.artifacts.drafts import CreationDraft
from bonseyes_dagster.tool.artifacts.index import STATUS_COLUMNS, ArtifactRow, Index, TakenError
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.logs import iter_log
from bonseyes_dagster.tool.artifacts.metrics import iter_metric, metric_names
from bonseyes_dagster.tool.artifacts.progress import progress_from_json, read_progress
from bonseyes_dagster.tool.artifacts.publishing import DamagedError, read_manifest, size_damage
from bonseyes_dagster.tool.artifacts.rebuild import ensure_index, write_mark
from bonseyes_dagster.tool.artifacts.renaming import rename
from bonseyes_dagster.tool.artifacts.reuse import LongReadingError, adopt_newest, mark_damaged
from bonseyes_dagster.tool.code.fingerprint import fingerprint, request_digest
from bonseyes_dagster.tool.code.watch import CodeWatch
from bonseyes_dagster.tool.fetching.outbound import Policy
from bonseyes_dagster.tool.fetching.parameters import check_creation
from bonseyes_dagster.tool.files.disk import throw_away
from bonseyes_dagster.tool.worker.bell import Bell, Listener, Waiters
from bonseyes_dagster.tool.worker.state import check_worker, read_state
from bonseyes_dagster.urls import Collection, canonical
from bonseyes_dagster.web import backend
from bonseyes_dagster.web.final_watch import FinalWatch

__all__ = ["Store"]

# SIGTERM, 10 s of grace, SIGKILL, and some time for the worker to notice.
_LONGEST_DELETE_S = 20.0
# Reading so much takes about a third of a second.
_MOST_READ_BYTES = 256 << 20
_log = logging.getLogger(__name__)


class Store:
    """Implements `web.backend.Backend` on one volume. Many processes may each have a store of the same volume."""

    def __init__(
        self, tool: ToolDescription, volume: Volume, settings: Settings, code: CodeWatch | None = None
    ) -> None:
        volume.make()
        self._tool = tool
        self._code = code
        self._volume = volume
        self._settings = settings
        self._container = settings.container or tool.name
        self._policy = Policy.from_settings(settings)
        ensure_index(volume, tool.name)
        self._index = Index(volume.index)
        self._queue_bell = Bell(volume.queue_bell)
        self._final_bell = Bell(volume.final_bell)
        self._waiters = Waiters(self._final_bell)
        self._finals = FinalWatch(self._index.final_among, Listener(self._final_bell).wait)
        self._manifest = lru_cache(maxsize=64)(self._read_manifest)

    @property
    def kind(self) -> Collection:
        """Return `artifacts`."""
        return "artifacts"

    def describe(self) -> ToolDescription:
        """Return the description from `tool.yml`, and whether the code has changed since it was loaded."""
        has_fault = bool(read_state(self._volume).get("code_fault"))
        is_different = self._code is not None and self._code.difference() is not None
        return replace(self._tool, code_changed=has_fault or is_different)

    def check_health(self) -> None:
        """Raise UnavailableError if the index is unusable, no worker runs, or the tool's code cannot be loaded."""
        self._index.check()
        check_worker(self._volume)

    def gauges(self) -> Mapping[str, float]:
        """Return the number of artifacts in each phase, the length of the queue and the free disk space."""
        counts = self._index.counts()
        stat = os.statvfs(self._volume.path)
        return {
            "queue_length": counts.get("queued", 0),
            "volume_free_bytes": stat.f_bavail * stat.f_frsize,
            **{f'artifacts{{phase="{phase}"}}': counts.get(phase, 0) for phase in get_args(Phase)},
        }

    # Creating

    def begin(self) -> CreationDraft:
        """Begin a creation; raise StorageFullError if the reserve of the disk is used up."""
        check_reserve(self._volume.path, self._settings.disk_reserve_bytes)
        return CreationDraft(
            self._volume,
            reserve_bytes=self._settings.disk_reserve_bytes,
            file_parameters=frozenset(p.name for p in self._tool.parameters if p.type == "file"),
        )

    def create(self, request: backend.Request) -> str:
        """Create the artifact durably and return its name."""
        draft = request.draft
        if not isinstance(draft, CreationDraft):
            raise TypeError(f"The draft {draft!r} belongs to another backend.")
        digest = request_digest(request.name, request.parameters, draft.files())
        # Look up the name before the key: if the same request takes the name meanwhile, the key is found afterwards.
        is_taken = self._index.has_name(request.name)
        known = self._known(request, digest)
        if known is not None:
            return known
        if is_taken:
            raise ConflictError(f"There is an artifact {request.name!r} already; delete it or take another name.")
        check_reserve(self._volume.path, self._settings.disk_reserve_bytes)
        row = self._checked(request, draft, digest)
        with storage_errors():
            if not (request.reuse and self._insert_reused(row, draft)):
                self._insert(row, draft)
        return row.name or request.name

    def _known(self, request: backend.Request, digest: str) -> str | None:
        """Return the artifact that an earlier request with the same key created."""
        if request.idempotency_key is None:
            return None
        if not request.idempotency_key.strip():
            raise InvalidError("The Idempotency-Key is empty; leave it out or fill it in.")
        known = self._index.by_key(request.idempotency_key)
        if known is None:
            return None
        if known.request_digest != digest:
            raise InvalidError(
                f"The Idempotency-Key was used for another request, which created {known.name!r}; use a new key."
            )
        return known.name

    def _checked(self, request: backend.Request, draft: CreationDraft, digest: str) -> ArtifactRow:
        parameters, inputs = check_creation(self._tool, request.parameters, draft.parts, self._policy)
        files = draft.files()
        return ArtifactRow(
            id=draft.id,
            name=request.name,
            created=now(),
            tool=self._tool.name,
            version=self._tool.version,
            parameters=parameters,
            files=files,
            inputs=inputs,
            fingerprint=fingerprint(self._tool, parameters, files, inputs),
            reuse=bool(request.reuse),
            idempotency_key=request.idempotency_key,
            request_digest=digest,
        )

    def _insert(self, row: ArtifactRow, draft: CreationDraft) -> None:
        """Make the files durable, then the row, and wake the worker."""
        draft.move_to_artifacts()
        try:
            seq = self._index.insert(row, queue_limit=self._settings.queue_limit)
        except TakenError as error:
            draft.discard()
            self._resolve_conflict(row, error)
            return
        except (StorageFullError, UnavailableError):
            if not self._index.undo_failed_write():
                # A crash may bring the row back, so keep its files. Without a row, the sweep removes them.
                draft.hand_over()
            raise
        draft.hand_over()
        self._queue_bell.ring()
        with suppress(OSError):
            write_mark(self._volume, seq)

    def _resolve_conflict(self, row: ArtifactRow, error: TakenError) -> None:
        """Return if the same request has already created the artifact; else raise the error of the conflict."""
        same = self._index.by_key(row.idempotency_key) if row.idempotency_key else None
        if same is None:
            raise ConflictError(
                f"There is an artifact {row.name!r} already; delete it or take another name."
            ) from error
        if same.request_digest != row.request_digest:
            raise InvalidError("The Idempotency-Key was used for another request; use a new key.") from error

    def _insert_reused(self, row: ArtifactRow, draft: CreationDraft) -> bool:
        """Make the artifact from a completed one with the same fingerprint; tell whether there was one."""
        if row.fingerprint is None or self._index.reusable(row.fingerprint) is None:
            return False
        try:
            made = adopt_newest(
                self._index,
                self._volume,
                row.fingerprint,
                draft.folder(),
                lambda source: reused_row(row, source),
                most_bytes=_MOST_READ_BYTES,
            )
        except LongReadingError:  # leave it to the worker, where no client waits for the answer
            made = None
        if made is None:
            # The other artifact is damaged, is being deleted, or needs a long reading.
            draft.clear_but_inputs()
            return False
        self._insert(made, draft)
        self._final_bell.ring()
        return True

    # Reading

    def names(self, *, limit: int | None = None, after: str | None = None) -> list[str]:
        """Return names, oldest first."""
        return self._index.names(limit=limit, after=after)

    def statuses(self, *, limit: int | None = None, after: str | None = None) -> list[Status]:
        """Return the statuses of the same page."""
        return [self._status(columns) for columns in self._index.status_page(limit=limit, after=after)]

    def status(self, name: str) -> Status:
        """Return the status as it is now."""
        return self._full_status(self._index.get(name))

    def when_final(self, name: str) -> Future[None]:
        """Return a future that is done once the artifact is final or deleted."""
        return self._finals.when_final(name)

    def _full_status(self, row: ArtifactRow) -> Status:
        columns = {key: getattr(row, key) for key in STATUS_COLUMNS}
        columns["position"] = self._index.position(row.seq) if row.phase == "queued" else None
        return self._status(columns)

    def _status(self, columns: Mapping[str, Any]) -> Status:
        progress = columns["progress"]
        if columns["phase"] == "running":
            progress = read_progress(self._volume.folder(columns["id"]).progress)
        values = {key: columns[key] for key in (*STATUS_COLUMNS, "position") if key not in ("id", "progress", "damage")}
        values["code_changed"] = bool(values["code_changed"])
        if columns["damage"]:
            values["reason"] = f"Its data is damaged. {columns['damage']}"
        return Status(progress=progress_from_json(progress), **values)

    def info(self, name: str) -> dict[str, Any]:
        """Return all facts about an artifact."""
        row = self._index.get(name)
        status = self._full_status(row)
        return {
            "name": name,
            "id": row.id,
            "idempotency_key": row.idempotency_key,
            "url": canonical(self._container, name),
            "status": status.to_json(),
            "parameters": dict(row.parameters),
            "output_type": self._tool.output_type,
            "digest": row.digest,
            "size": row.size,
            "provenance": {
                "container": self._container,
                "tool": row.tool,
                "version": row.version,
                "fingerprint": row.fingerprint,
                "files": {key: dict(value) for key, value in row.files.items()},
                "inputs": {key: dict(value) for key, value in row.inputs.items()},
                "reused_from": row.reused_from,
                "code_changed": row.code_changed,
            },
        }

    def log(self, name: str, *, offset: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield the log from byte `offset`; with `follow` until the artifact is final."""
        artifact_id, _ = self._index.phase(name)
        path = self._volume.folder(artifact_id).log

        def is_final() -> bool:
            phase = self._index.phase_of(artifact_id)
            if phase is None:
                raise NotFoundError(f"The artifact {name!r} was deleted.")
            return phase in TERMINAL_PHASES

        return iter_log(path, offset, is_final if follow else None)

    def manifest(self, name: str) -> Manifest:
        """Return the files; raise NotReadyError until completed."""
        return self._published(name)[1]

    def data(self, name: str, prefix: str = "") -> list[backend.DataFile]:
        """Return the file `prefix`, or every file below it."""
        artifact_id, manifest = self._published(name)
        # Text, not a Path: joining ten thousand Paths took longer than reading the files.
        folder = str(self._volume.folder(artifact_id).data)
        prefix = prefix.strip("/")
        entries = [
            entry
            for entry in manifest.files
            if not prefix or entry.path == prefix or entry.path.startswith(f"{prefix}/")
        ]
        if prefix and not entries:
            raise NotFoundError(f"The artifact {name!r} has no file {prefix!r}.")
        for entry in entries:
            if (damage := size_damage(entry, f"{folder}/{entry.path}")) is not None:
                raise self._damaged(name, artifact_id, damage)
        return [_data_file(entry, f"{folder}/{entry.path}") for entry in entries]

    def _published(self, name: str) -> tuple[str, Manifest]:
        artifact_id, phase, digest = self._index.published(name)
        if phase != "completed":
            reason = "it has no data yet." if phase not in TERMINAL_PHASES else self._index.get(name).reason
            raise NotReadyError(f"The artifact {name!r} is {phase}: {reason or 'it has no data.'}")
        try:
            return artifact_id, self._manifest(artifact_id, digest)
        except FileNotFoundError as error:
            damage = str(error) if isinstance(error, DamagedError) else "Its manifest is gone."
            raise self._damaged(name, artifact_id, damage) from None

    def _damaged(self, name: str, artifact_id: str, damage: str) -> NotReadyError:
        """Mark the artifact as damaged, and return the error for the client."""
        row = self._index.get(name)  # raises NotFoundError if it was deleted meanwhile
        if row.id == artifact_id and row.damage is None:
            with suppress(StorageFullError, UnavailableError):
                mark_damaged(self._index, row, damage)
        return NotReadyError(f"The data of the artifact {name!r} is damaged. {damage}")

    def _read_manifest(self, artifact_id: str, digest: str | None) -> Manifest:
        return read_manifest(self._volume.folder(artifact_id), digest)

    def input_parameters(self, name: str) -> Mapping[str, Any]:
        """Return the parameters with defaults filled in."""
        return self._index.get(name).parameters

    def input_files(self, name: str) -> list[str]:
        """Return the names of the parameters with files."""
        return sorted(self._index.get(name).files)

    def input_file(self, name: str, file: str) -> backend.DataFile:
        """Return the file of one parameter."""
        row = self._index.get(name)
        if file not in row.files:
            raise NotFoundError(f"The artifact {name!r} has no input file {file!r}.")
        known = row.files[file]
        entry = FileEntry(known["filename"], known["size"], known["sha256"])
        return _data_file(entry, str(self._volume.folder(row.id).inputs / file / known["filename"]))

    def metrics(self, name: str) -> list[str]:
        """Return the names of the scalar metrics that have points so far."""
        artifact_id, _ = self._index.phase(name)
        return metric_names(self._volume.folder(artifact_id).metrics)

    def metric(self, name: str, metric: str, *, offset: int = 0) -> Iterable[bytes]:
        """Yield whole lines of one metric from byte `offset`."""
        artifact_id, _ = self._index.phase(name)
        return iter_metric(self._volume.folder(artifact_id).metrics, metric, offset)

    # Ending

    def cancel(self, name: str) -> Status:
        """Ask for cancellation and return the status; a final artifact stays as it is."""
        self._index.cancel(name)
        self._queue_bell.ring()
        self._final_bell.ring()
        return self.status(name)

    def rename(self, name: str, new_name: str) -> None:
        """Rename a final artifact; its idempotency key becomes free."""
        rename(self._index, self._volume, name, new_name)

    def delete(self, name: str, *, with_artifacts: bool = False) -> list[str]:
        """Hide the artifact at once, end its processes and remove its folder."""
        artifact_id, is_running, mark = self._index.hide(name)
        self._final_bell.ring()
        with suppress(OSError):
            write_mark(self._volume, mark)
        if is_running:
            self._queue_bell.ring()
            self._wait_until_gone(artifact_id)
        else:
            throw_away(self._volume.folder(artifact_id).path, self._volume.trash)
        return []

    def _wait_until_gone(self, artifact_id: str) -> None:
        """Wait until the worker has ended the processes; without a worker, its next start ends them."""
        deadline = time.monotonic() + _LONGEST_DELETE_S
        while time.monotonic() < deadline:
            rings = self._waiters.count()
            if self._index.by_id(artifact_id) is None:
                return
            self._waiters.wait(rings, deadline - time.monotonic())


def reused_row(row: ArtifactRow, source: ArtifactRow) -> ArtifactRow:
    """Return the completed row of an artifact that re-uses `source`."""
    moment = now()
    values = {key: getattr(row, key) for key in ArtifactRow.__slots__}
    values.update(
        phase="completed",
        started=moment,
        finished=moment,
        size=source.size,
        digest=source.digest,
        progress=source.progress,
        reused_from=source.name,
    )
    return ArtifactRow(**values)


def _data_file(entry: FileEntry, path: str) -> backend.DataFile:
    def opened() -> BinaryIO:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise NotFoundError(
                    f"The file {entry.path!r} is gone: its artifact was deleted, or its data is damaged."
                ) from None
            raise UnavailableError(f"The file {entry.path!r} cannot be read: {error.strerror}.") from error
        # No buffer: each reader asks for as many bytes as it can hold.
        return cast("BinaryIO", open(descriptor, "rb", buffering=0))  # noqa: PTH123 - the caller closes it

    return backend.DataFile(entry, opened)


def _conforms(store: Store) -> backend.Backend:
    """Let mypy check that the store implements `Backend`."""
    return store
