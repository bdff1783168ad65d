"""Find out whether a file changes, or may change, while it is digested; publishing checks every file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

__all__ = ["FileState", "has_leases", "is_open_to_write", "state_of", "writers_of"]

# ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS and bcachefs: the kernel itself grants leases on them. A network file
# system may refuse a lease for reasons of its server.
_WITH_LEASES = frozenset({0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E})
_LARGEST_STATFS_BYTES = 256
_libc = ctypes.CDLL(None, use_errno=True)

FileState = tuple[int, int, int, int, int]


def state_of(stat: os.stat_result) -> FileState:
    """Return a state that changes when a file is replaced or written to.

    A file with several hard links has no last part, the time of its last change: making each link read-only changes it.
    """
    changed_ns = stat.st_ctime_ns if stat.st_nlink == 1 else 0
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, changed_ns


def has_leases(folder: Path) -> bool:
    """Tell whether `is_open_to_write` works for files in `folder`."""
    buffer = ctypes.create_string_buffer(_LARGEST_STATFS_BYTES)
    if _libc.statfs(os.fsencode(folder), buffer) != 0:
        return False
    return int(ctypes.cast(buffer, ctypes.POINTER(ctypes.c_long)).contents.value) & 0xFFFFFFFF in _WITH_LEASES


def is_open_to_write(descriptor: int) -> bool:
    """Tell whether any process has the file open to write, or mapped; `descriptor` is open to read.

    The kernel grants a lease only on a file without writers. This function returns the lease at once.
    """
    try:
        # If a writer opens the file in this moment, the kernel sends a signal. The default one would end this process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # Any other error means that we cannot get leases, for example because the file belongs to another user.
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def writers_of(descriptor: int) -> Iterator[int]:
    """Yield the processes that have the file open to write, as far as this process may inspect them."""
    wanted = os.fstat(descriptor)
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(_is_writer(folder.parent.name, entry.name, wanted) for entry in folder.iterdir()):
                yield int(folder.parent.name)


def _is_writer(pid: str, descriptor: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        found = Path(f"/proc/{pid}/fd/{descriptor}").stat()
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return is_descriptor_to_write(pid, descriptor)
    return False


def is_descriptor_to_write(pid: str | int, descriptor: str) -> bool:
    """Tell whether a descriptor of another process is open to write; raise OSError if the process has ended."""
    for line in Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False
