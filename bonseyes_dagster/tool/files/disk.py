"""Operations on files: fsync, links instead of copies, and removal."""

from __future__ import annotations

import _thread
import ctypes
import errno
import fcntl
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.system.storage import sync_folder
from bonseyes_dagster.tool.files.trees import remove_tree

__all__ = [
    "allocate",
    "copy",
    "is_own_folder",
    "link",
    "link_tree",
    "locked",
    "make_private",
    "remove",
    "sync_all",
    "sync_file_system",
    "syncing",
    "throw_away",
]

_CANNOT_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})
# Above this count, one syncfs() is cheaper than an fsync() per file.
_MANY_PATHS = 16
_FICLONE = 0x40049409
_KEEP_SIZE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Make files and folders durable. All syncs run at the same time, because a file system commits them together."""
    with syncing(paths):
        pass


@contextmanager
def syncing(paths: Iterable[Path]) -> Iterator[None]:
    """Sync files and folders while the block runs; they are durable when it has ended. Raises OSError."""
    waiting = list(paths)
    if len(waiting) > _MANY_PATHS:
        yield
        return sync_file_system(waiting[0])
    mine = waiting.pop()
    others = [_Sync(path) for path in waiting]
    try:
        for other in others:
            other.start()
        yield
        _sync(mine)
    finally:
        errors = [error for other in others if (error := other.end())]
    if errors:
        raise errors[0]
    return None


class _Sync:
    """One fsync in a bare thread. `Thread.start` waits until its thread runs, and a pool is even slower."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._error: OSError | None = None
        # Locked while the thread works.
        self._working = threading.Lock()

    def start(self) -> None:
        """Start the sync; raise RuntimeError if the system allows no further thread."""
        self._working.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except BaseException:
            self._working.release()
            raise

    def _run(self) -> None:
        try:
            _sync(self._path)
        except OSError as error:
            self._error = error
        finally:
            self._working.release()

    def end(self) -> OSError | None:
        """Wait for the end of the sync, and return its error."""
        with self._working:
            return self._error


def sync_file_system(path: Path) -> None:
    """Sync the whole file system of `path`; this is cheaper than many single fsyncs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def allocate(path: Path, size_bytes: int) -> None:
    """Allocate disk space for later writes to a file; do nothing on a full disk or if the file system cannot do it."""
    with path.open("rb+") as file:
        _libc.fallocate(file.fileno(), _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size_bytes))


@contextmanager
def locked(folder: Path, *, exclusively: bool) -> Iterator[None]:
    """Hold a lock on a folder while the block runs; the end of the process releases it, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """Give `target` the content of `source`: as a hard link, else a reflink, else a copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        copy(source, target)


def copy(source: Path, target: Path) -> None:
    """Copy a file durably, as a reflink if the file system supports it."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1 << 20)
        os.fsync(writer.fileno())
        os.fchmod(writer.fileno(), 0o444)


def link_tree(source: Path, target: Path) -> None:
    """Link every file below `source` to the same place below `target`, and sync the new folders."""
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                link_tree(Path(entry.path), target / entry.name)
            else:
                link(Path(entry.path), target / entry.name)
    sync_folder(target)


def throw_away(path: Path, trash: Path) -> None:
    """Move a tree to `trash`, which hides it at once, and remove it; after a crash the rest is in `trash`."""
    doomed = trash / f"{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        path.rename(doomed)
    except FileNotFoundError:
        return
    except OSError:
        # The disk is too full or too broken for a rename. Nobody reads the tree any more, so remove it in its place.
        doomed = path
        # Remove the files that describe the tree first: after a crash the rest must not look like an artifact.
        _remove_files(path)
    remove(doomed)


def _remove_files(folder: Path) -> None:
    with _ignored(), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink()


def make_private(folder: Path) -> None:
    """Make a folder that only this user can enter, in a place where every user may make folders.

    Raises ToolError if a file or folder of another user is in the way.
    """
    if is_own_folder(folder):
        remove(folder)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError as error:
        raise ToolError(f"{folder} is not a folder of this user; remove it, and create the artifact again.") from error


def is_own_folder(path: Path) -> bool:
    """Tell whether `path` is a folder of this user, and not a link to a folder."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def remove(path: Path) -> None:
    """Remove a tree, also if the tool has removed its own permissions, or if the tree no longer exists."""
    remove_tree(path)
    if path.exists():
        # A process wrote to it meanwhile.
        remove_tree(path)


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except OSError:
        return
