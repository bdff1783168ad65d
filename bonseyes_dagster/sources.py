"""The files of a tool's code: their digests make the tool's version, their stat results show changes.

`description.py` hashes the files when it reads a tool. A tool container checks them before and after each artifact.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Sources"]

_IGNORED = frozenset({"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache"})
# After two changes within one tick of the file system's clock, a file can have the same time.
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_000_000_000
_MOST_TRIES = 5

Key = tuple[int, str]
"""The number of a folder, and the path of a file below it with forward slashes."""
Identity = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    identity: Identity
    """Device, inode, size, mtime and ctime; no program can set the ctime."""


@dataclass(slots=True)
class _Snapshot:
    """The stat results of all files, folders and links in the tool's folders at one moment."""

    began_ns: int
    files: dict[Key, _File] = field(default_factory=dict)
    folders: dict[str, Identity] = field(default_factory=dict)
    links: dict[str, Identity] = field(default_factory=dict)
    dangling: set[str] = field(default_factory=set)
    caches: dict[str, set[str]] = field(default_factory=dict)
    _checks: list[tuple[str, int, int]] = field(default_factory=list)

    def is_current(self) -> bool:
        """Tell whether nothing has changed since this snapshot; costs a stat for each file and folder."""
        if not self._checks:
            self._checks = [(file.path, file.identity[1], file.identity[-1]) for file in self.files.values()]
        try:
            # Written for speed: it runs twice for each artifact. Every change of a file changes its ctime.
            for path, inode, changed_ns in self._checks:
                status = os.stat(path)  # noqa: PTH116
                if status.st_ctime_ns != changed_ns or status.st_ino != inode:
                    return False
            return (
                all(_folder_identity(os.stat(path)) == known for path, known in self.folders.items())  # noqa: PTH116
                and all(_file_identity(os.lstat(path)) == known for path, known in self.links.items())
                and not any(os.path.exists(path) for path in self.dangling)  # noqa: PTH110
            )
        except OSError:
            return False

    def is_same(self, other: _Snapshot) -> bool:
        """Tell whether two snapshots differ at most in Python's bytecode caches.

        A new cache in a folder changes the time of the folder.
        """
        return (
            self.files == other.files
            and self.links == other.links
            and self.dangling == other.dangling
            and self.folders.keys() == other.folders.keys()
            and all(
                known == other.folders[path] or self.caches[path] != other.caches[path]
                for path, known in self.folders.items()
            )
        )

    def names_of_changes(self, other: _Snapshot) -> list[str]:
        """Return the paths, relative to the tool's folders, of the files that differ between two snapshots."""
        keys = self.files.keys() | other.files.keys()
        found = [key[1] for key in sorted(keys) if self.files.get(key) != other.files.get(key)]
        return found or ["files that came and went"]

    def _age_ns(self) -> int:
        times = [time_ns for known in self._identities() for time_ns in known[-2:]]
        return self.began_ns - max(times, default=0)

    def _identities(self) -> Iterator[Identity]:
        yield from (file.identity for file in self.files.values())
        yield from self.folders.values()
        yield from self.links.values()

    def settling_ns(self) -> int:
        """Return how long to wait until every further change gets a new time; 0 when no wait is needed."""
        age_ns = self._age_ns()
        tick_ns = _TICK_NS if (self.began_ns - age_ns) % 1_000_000_000 else _COARSE_TICK_NS
        # A time far in the future comes from before the clock was set back. Waiting for it would take too long.
        return min(tick_ns - age_ns, tick_ns) if -1_000_000_000 < age_ns < tick_ns else 0


def _file_identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _folder_identity(status: os.stat_result) -> Identity:
    # No inode: some file systems give a mounted folder a new inode number.
    return status.st_mtime_ns, status.st_ctime_ns


def _take_snapshot(folders: Sequence[str]) -> _Snapshot:
    """Return a snapshot of the folders; every later change differs from it."""
    for _ in range(_MOST_TRIES):
        snapshot = _Snapshot(time.time_ns())
        for number, folder in enumerate(folders):
            status = os.stat(folder)  # noqa: PTH116
            if stat.S_ISREG(status.st_mode):
                snapshot.files[number, os.path.basename(folder)] = _File(folder, _file_identity(status))  # noqa: PTH119
            else:
                _walk(snapshot, number, folder, "", frozenset())
        settling_ns = snapshot.settling_ns()
        if not settling_ns:
            break
        time.sleep(settling_ns / 1e9)
    return snapshot


def _walk(snapshot: _Snapshot, number: int, folder: str, relative: str, above: frozenset[tuple[int, int]]) -> None:
    """Add the content of a folder; follow links, but not back into a folder above."""
    status = os.stat(folder)  # noqa: PTH116 - strings are much faster than Path, and there are many files
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    snapshot.folders[folder] = _folder_identity(status)
    caches = snapshot.caches.setdefault(folder, set())
    with os.scandir(folder) as listed:
        entries = list(listed)
    for entry in entries:
        if entry.name in _IGNORED:
            caches.add(entry.name)
        elif not _add(snapshot, number, entry, f"{relative}{entry.name}"):
            _walk(snapshot, number, entry.path, f"{relative}{entry.name}/", above | {here})


def _add(snapshot: _Snapshot, number: int, entry: os.DirEntry[str], relative: str) -> bool:
    """Add one entry; return False for a folder, which the caller walks."""
    try:
        if entry.is_symlink():
            snapshot.links[entry.path] = _file_identity(os.lstat(entry.path))
        status = os.stat(entry.path)  # noqa: PTH116
    except OSError:
        snapshot.dangling.add(entry.path)
        return True
    if stat.S_ISREG(status.st_mode):
        snapshot.files[number, relative] = _File(entry.path, _file_identity(status))
    return not stat.S_ISDIR(status.st_mode)


def _digests(snapshot: _Snapshot, known: Sources | None) -> dict[Key, str]:
    """Return the sha256 of each file; take the digests of unchanged files from `known`."""
    digests = {}
    for key, file in snapshot.files.items():
        if known is not None and known.snapshot.files.get(key) == file:
            digests[key] = known.digests[key]
        else:
            with open(file.path, "rb") as content:  # noqa: PTH123
                digests[key] = hashlib.file_digest(content, "sha256").hexdigest()
    return digests


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a tool's folders at one moment; an entry of `folders` may also be a single file."""

    folders: tuple[str, ...]
    snapshot: _Snapshot
    digests: Mapping[Key, str]

    @classmethod
    def read(cls, folders: Iterable[Path], known: Sources | None = None) -> Sources:
        """Read the files, and read again if they change meanwhile; raise OSError for a file that cannot be read."""
        texts = tuple(str(folder) for folder in folders)
        tries = 0
        while True:
            tries += 1
            try:
                snapshot = _take_snapshot(texts)
                sources = cls(texts, snapshot, _digests(snapshot, known))
            except (FileNotFoundError, NotADirectoryError):
                if tries >= _MOST_TRIES:
                    raise
                continue
            # A file that changes all the time differs from this snapshot at the next check anyway.
            if tries >= _MOST_TRIES or snapshot.is_current():
                return sources

    def again(self) -> Sources:
        """Return the sources as they are now; read only the changed files."""
        return Sources.read([Path(folder) for folder in self.folders], self)

    def is_current(self) -> bool:
        """Tell whether nothing has changed since; fast."""
        return self.snapshot.is_current()

    def is_same(self, other: Sources) -> bool:
        """Tell whether the two differ at most in Python's bytecode caches."""
        return self.snapshot.is_same(other.snapshot)

    def changes(self, other: Sources) -> list[str]:
        """Return the paths of the files whose stat result differs."""
        return self.snapshot.names_of_changes(other.snapshot)

    def differences(self, other: Sources) -> list[str]:
        """Return the paths of the files whose content differs."""
        keys = self.digests.keys() | other.digests.keys()
        return [key[1] for key in sorted(keys) if self.digests.get(key) != other.digests.get(key)]

    def hash_into(self, version: hashlib._Hash) -> None:
        """Add the path and digest of each file to `version`, in the order of the paths."""
        for number, relative in sorted(self.digests, key=lambda key: (key[0], key[1].split("/"))):
            line = f"{number} {relative} {self.digests[number, relative]}\n"
            version.update(line.encode("utf-8", "surrogateescape"))

    def remove_stale_bytecode(self) -> None:
        """Remove each `.pyc` file that is older than the last change of its source, or hardly younger.

        Python compares size and time of the source, in whole seconds. Changed content can have the same size and time.
        """
        for file in self.snapshot.files.values():
            folder, name = os.path.split(file.path)
            if name.endswith(".py") and (sys.pycache_prefix or "__pycache__" in self.snapshot.caches.get(folder, ())):
                _remove_older(_cache(Path(folder)), name.removesuffix(".py"), file.identity[-1])


def _cache(folder: Path) -> Path:
    if sys.pycache_prefix:
        return Path(sys.pycache_prefix, folder.relative_to(folder.anchor))
    return folder / "__pycache__"


def _remove_older(cache: Path, stem: str, changed_ns: int) -> None:
    for compiled in cache.glob(f"{stem}.*.pyc"):
        try:
            if compiled.stat().st_mtime_ns < changed_ns + _COARSE_TICK_NS:
                compiled.unlink()
        except OSError:
            # Python cannot write to a cache in which this process cannot remove files.
            continue
