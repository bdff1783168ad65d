"""A creation in progress: uploaded files stream into a folder that nobody sees until the index has its row."""

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

__all__ = ["Draft", "is_abandoned"]


class _Sink(io.RawIOBase):
    """Takes a part that no parameter is waiting for; that it came is said when the parameters are checked."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


class Draft:
    """The folder of an artifact before its creation. It is locked, so that recovery leaves it alone while we live."""

    def __init__(self, volume: Volume, *, reserve_bytes: int, file_parameters: frozenset[str]) -> None:
        self.id = uuid.uuid4().hex
        self._volume = volume
        self._folder: Folder | None = None
        self._lock: int | None = None
        self._reserve_bytes = reserve_bytes
        self._file_parameters = file_parameters
        self._uploads: dict[str, UploadedFile] = {}
        self._strangers: set[str] = set()

    def open(self, parameter: str, filename: str) -> BinaryIO:
        """Return a file to stream one uploaded part into; raise StorageFullError as it fills."""
        if parameter not in self._file_parameters:
            self._strangers.add(parameter)
            return cast("BinaryIO", _Sink())
        with storage_errors():
            folder = self.folder().inputs / parameter
            folder.mkdir(parents=True)
            upload = UploadedFile(folder / filename, reserve_bytes=self._reserve_bytes)
        self._uploads[parameter] = upload
        return upload

    def folder(self) -> Folder:
        """Return the folder, made and locked the first time."""
        if self._folder is None:
            path = self._volume.drafts / self.id
            # Recovery holds this lock exclusively, so it never sees the folder before it is locked.
            with locked(self._volume.drafts, exclusively=False):
                path.mkdir()
                self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._folder = Folder(path)
        return self._folder

    @property
    def parts(self) -> frozenset[str]:
        """Return the names of all parts that came, expected or not."""
        return frozenset(self._uploads) | self._strangers

    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Return `{parameter: {filename, size, sha256}}` of the uploads."""
        return {
            parameter: {"filename": upload.path.name, "size": upload.size_bytes, "sha256": upload.sha256}
            for parameter, upload in sorted(self._uploads.items())
        }

    def settle(self) -> None:
        """Make everything durable and move it to its place; it is still nobody's until the index has its row."""
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
        """Remove what is not an upload."""
        for path in list(self.folder().path.iterdir()):
            if path.name != "inputs":
                remove(path) if path.is_dir() else path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Leave the folder to the artifact, whose row is durable now."""
        self._folder = None
        self._uploads = {}
        self._unlock()

    def discard(self) -> None:
        """Remove everything; harmless after `keep` and when called twice."""
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
    """Tell whether nobody is creating in the folder `path` any more."""
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
