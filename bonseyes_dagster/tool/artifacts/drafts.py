"""A creation in progress: uploads stream into a folder that no reader sees until the index has its row."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from bonseyes_dagster.errors import InvalidError, TooLargeError
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.files.disk import check_reserve, locked, remove, start_writing, storage_errors, sync_folder

__all__ = ["CreationDraft", "is_abandoned", "safe_file_name"]

_CHECK_EVERY_BYTES = 1 << 24
_START_EVERY_BYTES = 1 << 23
_LONGEST_NAME_BYTES = 200


def safe_file_name(filename: str) -> str:
    """Return the last part of a client's file name, without characters that could do harm on this disk."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character for character in last if character.isprintable()).strip().lstrip(".")
    encoded = kept.encode("utf-8", "ignore")[-_LONGEST_NAME_BYTES:]
    return encoded.decode("utf-8", "ignore").lstrip(".") or "file"


class _Upload(io.FileIO):
    """One uploaded part: hashed while it is written, and refused once it is too large."""

    def __init__(self, path: Path, draft: CreationDraft) -> None:
        super().__init__(path, "x+")
        self._draft = draft
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._started_bytes = 0

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        view = memoryview(data).cast("B")
        self._draft.count(len(view))
        with storage_errors():
            written = 0
            while written < len(view):
                written += super().write(view[written:]) or 0
        self._hash.update(view)
        self.size_bytes += len(view)
        left_bytes = self.size_bytes - self._started_bytes
        if left_bytes >= _START_EVERY_BYTES:
            start_writing(self.fileno(), self._started_bytes, left_bytes)
            self._started_bytes = self.size_bytes
        return len(view)

    def close(self) -> None:
        """Sync the file and close it."""
        if not self.closed:
            try:
                with storage_errors():
                    os.fsync(self.fileno())
            finally:
                super().close()

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes that were written."""
        return self._hash.hexdigest()


class _Sink(io.RawIOBase):
    """Discards a part that is no file parameter; the check of the parameters reports it later."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


class CreationDraft:
    """The folder of an artifact before its creation. A lock keeps recovery away from it while this process lives."""

    def __init__(
        self, volume: Volume, *, limit_bytes: int, reserve_bytes: int, file_parameters: frozenset[str]
    ) -> None:
        self.id = uuid.uuid4().hex
        self._volume = volume
        self._folder: Folder | None = None
        self._lock: int | None = None
        self._limit_bytes = limit_bytes
        self._reserve_bytes = reserve_bytes
        self._file_parameters = file_parameters
        self._uploads: dict[str, tuple[str, _Upload]] = {}
        self._unexpected_parts: set[str] = set()
        self._had_bytes = 0
        self._checked_bytes = 0

    def open(self, parameter: str, filename: str) -> BinaryIO:
        """Return a file to stream one uploaded part into; raise TooLargeError or StorageFullError as it fills."""
        if parameter not in self._file_parameters:
            self._unexpected_parts.add(parameter)
            return cast("BinaryIO", _Sink())
        if parameter in self._uploads:
            raise InvalidError(f"The part {parameter!r} is there twice.", detail={parameter: "It is there twice."})
        with storage_errors():
            folder = self.folder().inputs / parameter
            folder.mkdir(parents=True)
            name = safe_file_name(filename)
            upload = _Upload(folder / name, self)
        self._uploads[parameter] = (name, upload)
        return upload

    def count(self, size_bytes: int) -> None:
        """Count bytes before they are written; raise TooLargeError or StorageFullError at a limit."""
        self._had_bytes += size_bytes
        if self._had_bytes > self._limit_bytes:
            raise TooLargeError(f"The files are larger than the {self._limit_bytes} bytes that this container takes.")
        if self._had_bytes - self._checked_bytes > _CHECK_EVERY_BYTES:
            self._checked_bytes = self._had_bytes
            check_reserve(self._volume.path, self._reserve_bytes)

    def folder(self) -> Folder:
        """Return the folder; the first call makes and locks it."""
        if self._folder is None:
            path = self._volume.drafts / self.id
            # Recovery takes this lock exclusively. So it never sees the new folder before the folder is locked.
            with locked(self._volume.drafts, exclusively=False):
                path.mkdir()
                self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._folder = Folder(path)
        return self._folder

    @property
    def parts(self) -> frozenset[str]:
        """Return the names of all received parts, expected or not."""
        return frozenset(self._uploads) | self._unexpected_parts

    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Return `{parameter: {filename, size, sha256}}` of the uploads."""
        return {
            parameter: {"filename": name, "size": upload.size_bytes, "sha256": upload.sha256}
            for parameter, (name, upload) in sorted(self._uploads.items())
        }

    def move_to_artifacts(self) -> None:
        """Sync everything and move the folder to its final place; no reader sees it until the index has its row."""
        if self._folder is None:
            return
        with storage_errors():
            for _, upload in self._uploads.values():
                upload.close()
                sync_folder(Path(os.fsdecode(upload.name)).parent)
            if self._uploads:
                sync_folder(self._folder.inputs)
            sync_folder(self._folder.path)
            target = self._volume.folder(self.id)
            self._folder.path.rename(target.path)
            self._folder = target
            sync_folder(self._volume.artifacts)

    def clear_but_inputs(self) -> None:
        """Remove everything in the folder except the uploads."""
        for path in list(self.folder().path.iterdir()):
            if path.name != "inputs":
                remove(path) if path.is_dir() else path.unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Hand the folder over to the artifact, whose row is durable now."""
        self._folder = None
        self._uploads = {}
        self._unlock()

    def discard(self) -> None:
        """Remove everything; a second call, or a call after `hand_over`, does nothing."""
        for _, upload in self._uploads.values():
            io.FileIO.close(upload)
        self._uploads = {}
        if self._folder is not None:
            remove(self._folder.path)
            self._folder = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def is_abandoned(path: Path) -> bool:
    """Tell whether no process holds the lock of the folder `path`, so that its creation has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOENT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
