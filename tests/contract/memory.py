"""A Backend in memory for tests of HTTP: it behaves like a container, but loses its index with its process."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bonseyes_dagster.description import check_parameters
from bonseyes_dagster.errors import (
    ConflictError,
    InvalidError,
    NotFinalError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    ToolError,
)
from bonseyes_dagster.model import FileEntry, Manifest, Progress, Status, ToolDescription, now
from bonseyes_dagster.urls import Collection as Kind
from bonseyes_dagster.web.backend import DataFile, Request
from bonseyes_dagster.web.final_watch import FinalWatch

__all__ = ["Job", "MemoryBackend"]

_LOOK_EVERY_S = 0.05


class _CancelledError(Exception):
    pass


@dataclass(slots=True)
class _Entry:
    """One artifact; its files are below `folder`, everything else is in this object."""

    name: str
    number: int
    folder: Path
    parameters: dict[str, Any]
    uploads: dict[str, Path]
    fingerprint: str
    idempotency: tuple[str, str] | None = None
    phase: Any = "queued"
    reason: str | None = None
    created: str = field(default_factory=now)
    started: str | None = None
    finished: str | None = None
    reused_from: str | None = None
    progress: Progress = field(default_factory=Progress)
    is_cancelled: bool = False
    is_reusing: bool = False
    log: bytearray = field(default_factory=bytearray)
    metrics: dict[str, bytearray] = field(default_factory=dict)
    manifest: Manifest | None = None


class Job:
    """The argument of the tool function: the artifact to make."""

    def __init__(self, backend: MemoryBackend, entry: _Entry) -> None:
        self._backend = backend
        self._entry = entry
        self.parameters: Mapping[str, Any] = entry.parameters
        self.uploads: Mapping[str, Path] = entry.uploads

    def path(self, path: str) -> Path:
        """Return the path for the output file `path`."""
        target = self._entry.folder / "data" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def log(self, text: str) -> None:
        """Write one line."""
        with self._backend.changed:
            self._entry.log += text.encode() + b"\n"
            self._backend.changed.notify_all()

    def scalar(self, metric: str, step: int, value: float) -> None:
        """Add one point."""
        with self._backend.changed:
            self._entry.metrics.setdefault(metric, bytearray()).extend(f"{time.time():.3f} {step} {value}\n".encode())

    def progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
        """Report progress; a cancelled job ends here."""
        self._entry.progress = Progress(done, total, unit, message)
        self.sleep(0)

    def sleep(self, duration_s: float) -> None:
        """Wait, or end if the job is cancelled."""
        with self._backend.changed:
            self._backend.changed.wait_for(lambda: self._entry.is_cancelled, duration_s)
            if self._entry.is_cancelled:
                raise _CancelledError


class _Draft:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}

    def open(self, parameter: str, filename: str) -> BinaryIO:
        folder = self.folder / "inputs" / parameter
        folder.mkdir(parents=True)
        self.files[parameter] = folder / filename
        return self.files[parameter].open("wb")

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class MemoryBackend:
    """A Backend with one worker thread; the first artifact starts it, so a server may fork before.

    `make` is the tool: it gets a Job, writes files and returns; an exception becomes the artifact's reason.
    """

    def __init__(
        self,
        description: ToolDescription,
        make: Callable[[Job], None],
        *,
        kind: Kind = "artifacts",
        queue_limit: int = 1000,
        folder: Path | None = None,
    ) -> None:
        self.kind: Kind = kind
        self.changed = threading.Condition()
        self._finals = FinalWatch(self._over, self._wait_for_change)
        self._description = description
        self._make = make
        self._queue_limit = queue_limit
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="bonseyes-memory-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._entries: dict[str, _Entry] = {}
        self._number = 0
        self._worker: threading.Thread | None = None

    def describe(self) -> ToolDescription:
        """Return the description."""
        return self._description

    def check_health(self) -> None:
        """Do nothing: it is always ready."""

    def gauges(self) -> Mapping[str, float]:
        """Count artifacts by phase."""
        with self.changed:
            phases = [entry.phase for entry in self._entries.values()]
        counts = {f'artifacts{{phase="{phase}"}}': float(phases.count(phase)) for phase in sorted(set(phases))}
        return {"queue_length": float(phases.count("queued")), **counts}

    def begin(self) -> _Draft:
        """Begin a creation in a new folder."""
        return _Draft(self._new_folder("draft"))

    def _new_folder(self, kind: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self._folder))

    # Creating

    def create(self, request: Request) -> str:
        """Check and queue an artifact, and return its name."""
        assert isinstance(request.draft, _Draft)
        uploads = request.draft.files
        parameters = check_parameters(self._description.parameters, request.parameters, files=list(uploads))
        content = {name: _sha256(path) for name, path in uploads.items()}
        fingerprint = hashlib.sha256(json.dumps([parameters, content], sort_keys=True).encode()).hexdigest()
        key = request.idempotency_key
        name = request.name or f"{self._description.name}-{self._number + 1}"
        with self.changed:
            if key is not None and (same := self._by_key(key)) is not None:
                return self._again(same, (key, f"{request.name} {fingerprint}"))
            self._check_room(name)
            self._number += 1
            folder = self._new_folder("artifact")
            for parameter, path in uploads.items():
                uploads[parameter] = Path(shutil.move(path, folder / f"{parameter}-{path.name}"))
            entry = _Entry(name, self._number, folder, parameters, dict(uploads), fingerprint)
            entry.idempotency = (key, f"{request.name} {fingerprint}") if key is not None else None
            entry.is_reusing = bool(request.reuse)
            if request.reuse:
                self._reuse(entry)
            self._entries[name] = entry
            self._start_worker()
            self.changed.notify_all()
        return name

    def _by_key(self, key: str) -> _Entry | None:
        entries = self._entries.values()
        return next((entry for entry in entries if entry.idempotency and entry.idempotency[0] == key), None)

    def _again(self, same: _Entry, idempotency: tuple[str, str]) -> str:
        if same.idempotency != idempotency:
            message = f"this Idempotency-Key made {same.name} from another body"
            raise InvalidError(message, detail={"Idempotency-Key": message})
        return same.name

    def _check_room(self, name: str) -> None:
        if name in self._entries:
            raise ConflictError(f"{name} exists already; delete it or choose another name")
        if sum(entry.phase == "queued" for entry in self._entries.values()) >= self._queue_limit:
            raise QueueFullError(f"{self._queue_limit} artifacts wait already; try again later")

    def _reuse(self, entry: _Entry) -> None:
        for other in self._entries.values():
            if other.phase == "completed" and other.fingerprint == entry.fingerprint:
                shutil.copytree(other.folder / "data", entry.folder / "data")
                entry.phase, entry.reused_from = "completed", other.name
                entry.manifest, entry.finished = other.manifest, now()
                self.changed.notify_all()
                return

    # Working

    def _start_worker(self) -> None:
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="memory-worker", daemon=True)
            self._worker.start()

    def _next(self) -> _Entry:
        with self.changed:
            while True:
                queued = [entry for entry in self._entries.values() if entry.phase == "queued"]
                if queued:
                    entry = min(queued, key=lambda entry: entry.number)
                    entry.phase, entry.started = "running", now()
                    if entry.is_reusing:
                        # An artifact earlier in the queue may have been equal.
                        self._reuse(entry)
                    return entry
                self.changed.wait()

    def _work(self) -> None:
        while True:
            entry = self._next()
            if entry.phase == "completed":
                continue
            try:
                (entry.folder / "data").mkdir(exist_ok=True)
                self._make(Job(self, entry))
                entry.manifest = _manifest(entry.folder / "data")
                self._finish(entry, "completed", None)
            except _CancelledError:
                self._finish(entry, "cancelled", "cancelled on request")
            except ToolError as error:
                self._finish(entry, "failed", error.message)
            except Exception as error:  # the worker survives any exception of a tool
                self._finish(entry, "failed", f"{type(error).__name__}: {error}")

    def _finish(self, entry: _Entry, phase: str, reason: str | None) -> None:
        with self.changed:
            entry.phase, entry.reason, entry.finished = phase, reason, now()
            self.changed.notify_all()

    # Reading

    def _entry(self, name: str) -> _Entry:
        with self.changed:
            if name not in self._entries:
                raise NotFoundError(f"there is no {self.kind.removesuffix('s')} {name!r}")
            return self._entries[name]

    def _page(self, limit: int | None, after: str | None) -> list[_Entry]:
        with self.changed:
            entries = sorted(self._entries.values(), key=lambda entry: entry.number)
        if after is not None:
            number = self._entry(after).number
            entries = [entry for entry in entries if entry.number > number]
        return entries[:limit]

    def names(self, *, limit: int | None = None, after: str | None = None) -> list[str]:
        """Return a page of names."""
        return [entry.name for entry in self._page(limit, after)]

    def statuses(self, *, limit: int | None = None, after: str | None = None) -> list[Status]:
        """Return the statuses of the page."""
        return [self._status(entry) for entry in self._page(limit, after)]

    def _status(self, entry: _Entry) -> Status:
        with self.changed:
            manifest = entry.manifest if entry.phase == "completed" else None
            before = [e for e in self._entries.values() if e.phase == "queued" and e.number < entry.number]
            is_run = self.kind == "runs"
            return Status(
                name=entry.name,
                phase=entry.phase,
                reason=entry.reason,
                position=len(before) + 1 if entry.phase == "queued" else None,
                progress=entry.progress,
                created=entry.created,
                started=entry.started,
                finished=entry.finished,
                size=manifest.size if manifest else None,
                digest=manifest.digest if manifest else None,
                reused_from=entry.reused_from,
                steps=() if is_run else None,
                run_id=f"{entry.number:032x}" if is_run else None,
            )

    def info(self, name: str) -> dict[str, Any]:
        """Return all facts about an artifact."""
        entry = self._entry(name)
        status = self._status(entry)
        return {
            "name": name,
            "idempotency_key": entry.idempotency[0] if entry.idempotency else None,
            "status": status.to_json(),
            "parameters": entry.parameters,
            "digest": status.digest,
            "size": status.size,
            "output_type": self._description.output_type,
            "provenance": {"fingerprint": entry.fingerprint, "version": self._description.version},
        }

    def status(self, name: str) -> Status:
        """Return the status."""
        return self._status(self._entry(name))

    def when_final(self, name: str) -> Future[None]:
        """Return a future that is done when the artifact is final or deleted."""
        return self._finals.when_final(name)

    def _over(self, names: Collection[str]) -> list[str]:
        with self.changed:
            return [name for name in names if name not in self._entries or self._status(self._entries[name]).is_final]

    def _wait_for_change(self) -> None:
        with self.changed:
            self.changed.wait(_LOOK_EVERY_S)

    def cancel(self, name: str) -> Status:
        """Cancel a queued artifact at once, a running one soon."""
        entry = self._entry(name)
        with self.changed:
            entry.is_cancelled = True
            if entry.phase == "queued":
                self._finish(entry, "cancelled", "cancelled on request")
            self.changed.notify_all()
        return self._status(entry)

    def rename(self, name: str, new_name: str) -> None:
        """Rename a final artifact."""
        entry = self._entry(name)
        with self.changed:
            if not self._status(entry).is_final:
                raise NotFinalError(f"{name} is {entry.phase}; cancel it, or wait until it has ended")
            if new_name == name:
                return
            if new_name in self._entries:
                raise ConflictError(f"{new_name} exists already; choose another name")
            del self._entries[name]
            self._entries[new_name] = entry
            entry.name, entry.idempotency = new_name, None
            entry.log += f"{now()} Renamed from {name} to {new_name}.\n".encode()
            for other in self._entries.values():
                is_later = (other.finished or "") >= (entry.finished or "")
                if (other.reused_from, other.fingerprint) == (name, entry.fingerprint) and is_later:
                    other.reused_from = new_name

    def delete(self, name: str, *, with_artifacts: bool = False) -> list[str]:
        """Cancel and remove."""
        self.cancel(name)
        with self.changed:
            entry = self._entries.pop(name)
        shutil.rmtree(entry.folder, ignore_errors=True)
        return []

    def log(self, name: str, *, offset: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield the log."""
        entry = self._entry(name)
        while True:
            with self.changed:
                is_final = self._status(entry).is_final
                data = bytes(entry.log[offset:])
            offset += len(data)
            yield data
            if is_final or not follow:
                return

    def manifest(self, name: str) -> Manifest:
        """Return the files of a completed artifact."""
        entry = self._entry(name)
        if entry.phase != "completed" or entry.manifest is None:
            raise NotReadyError(
                f"{name} is {entry.phase}, so it has no files" + (f": {entry.reason}" if entry.reason else "")
            )
        return entry.manifest

    def data(self, name: str, prefix: str = "") -> list[DataFile]:
        """Return a file, or the files of a folder."""
        folder = self._entry(name).folder / "data"
        entries = self.manifest(name).files
        below = prefix + "/" if prefix else ""
        found = [entry for entry in entries if entry.path == prefix or entry.path.startswith(below)]
        if prefix and not found:
            raise NotFoundError(f"{name} has no file or folder {prefix!r}")
        return [_data_file(folder / entry.path, entry) for entry in found]

    def input_parameters(self, name: str) -> Mapping[str, Any]:
        """Return the parameters with their defaults."""
        return self._entry(name).parameters

    def input_files(self, name: str) -> list[str]:
        """Return the names of the uploaded parameters."""
        return sorted(self._entry(name).uploads)

    def input_file(self, name: str, file: str) -> DataFile:
        """Return one uploaded file."""
        uploads = self._entry(name).uploads
        if file not in uploads:
            raise NotFoundError(f"{name} has no input file {file!r}; it has {sorted(uploads)}")
        path = uploads[file]
        return _data_file(path, FileEntry(file, path.stat().st_size, _sha256(path)))

    def metrics(self, name: str) -> list[str]:
        """Return the metrics with points."""
        return sorted(self._entry(name).metrics)

    def metric(self, name: str, metric: str, *, offset: int = 0) -> Iterable[bytes]:
        """Yield the points of a metric."""
        yield bytes(self._entry(name).metrics[metric][offset:])


def _data_file(path: Path, entry: FileEntry) -> DataFile:
    return DataFile(entry, lambda: path.open("rb"))


def _manifest(folder: Path) -> Manifest:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Manifest(
        tuple(FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path)) for path in files)
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
