"""The room and the durability of a disk: its reserve, its errors as errors of the API, and syncs."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bonseyes_dagster.errors import StorageFullError, UnavailableError

__all__ = ["check_reserve", "is_full", "start_writing", "storage_errors", "sync_folder"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE = 2


def is_full(error: BaseException) -> bool:
    """Tell whether `error` means that the disk or the quota has no room."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def storage_errors() -> Iterator[None]:
    """Translate errors of the disk itself: no room is StorageFullError, broken is UnavailableError."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise StorageFullError("The volume is full; delete what is no longer needed.") from error
        if error.errno in (errno.EIO, errno.EROFS):
            raise UnavailableError(f"The volume cannot be written: {error.strerror}.") from error
        raise


def check_reserve(path: Path, reserve_bytes: int) -> None:
    """Raise StorageFullError when less than `reserve_bytes` are free on the volume."""
    stat = os.statvfs(path)
    free_bytes = stat.f_bavail * stat.f_frsize
    if free_bytes < reserve_bytes:
        raise StorageFullError(
            f"The volume has {free_bytes} bytes free, and {reserve_bytes} are kept in reserve; "
            "delete what is no longer needed."
        )


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_writing(descriptor: int, offset: int, size_bytes: int) -> None:
    """Let the disk begin with a part of a file that is still being written, so that less is left for fsync.

    Makes nothing durable and tells of no error: both are for fsync.
    """
    _libc.sync_file_range(descriptor, offset, size_bytes, _SYNC_FILE_RANGE_WRITE)
