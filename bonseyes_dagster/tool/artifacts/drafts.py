"""A creation in progress: uploads stream into a folder that no reader sees until the index has its row."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from bonseyes_dagster.system.storage import storage_errors, sync_folder
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.files.disk import locked, remove
from bonseyes_dagster.web.uploads import UploadedFile

__all__ = ["CreationDraft", "is_abandoned"]


class _Sink(io.RawIOBase):
    """Discards a part that is no file parameter; the check of the parameters reports it later."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


class CreationDraft:
    """The folder of an artifact before its creation. A lock keeps recovery away from it while this process lives."""

    def __init__(self, volume: Volume, *, reserve_bytes: int, file_parameters: frozenset[str]) -> None:
        self.id = uuid.uuid4().hex
        self._volume = volume
        self._folder: Folder | None = None
        self._lock: int | None = None
        self._reserve_bytes = reserve_bytes
        self._file_parameters = file_parameters
        self._uploads: dict[str, UploadedFile] = {}
        self._unexpected_parts: set[str] = set()

    def open(self, parameter: str, filename: str) -> BinaryIO:
        """Return a file to stream one uploaded part into; raise StorageFullError as it fills."""
        if parameter not in self._file_parameters:
            self._unexpected_parts.add(parameter)
            return cast("BinaryIO", _Sink())
        with storage_errors():
            folder = self.folder().inputs / parameter
            folder.mkdir(parents=True)
            upload = UploadedFile(folder / filename, reserve_bytes=self._reserve_bytes)
        self._uploads[parameter] = upload
        return upload

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
            parameter: {"filename": upload.path.name, "size": upload.size_bytes, "sha256": upload.sha256}
            for parameter, upload in sorted(self._uploads.items())
        }

    def move_to_artifacts(self) -> None:
        """Sync everything and move the folder to its final place; no reader sees it until the index has its row."""
        if self._folder is None:
            return
        with storage_errors():
            for upload in self._uploads.values():
                upload.close()
                sync_folder(upload.path.parent)
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
        for upload in self._uploads.values():
            upload.abandon()
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
