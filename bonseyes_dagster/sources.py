"""The files that a tool's code is: hashed for its version, and watched by what the file system says of them.

`description.py` hashes them when a tool is read; a tool container looks at them again before and after each artifact.
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
# Two changes within one tick of the file system's clock can leave the same time on a file.
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
    """Device, inode, size, and the times of the last change of content and of anything (which nobody can set)."""


@dataclass(slots=True)
class _Look:
    """What the file system says of the folders at one moment."""

    began_ns: int
    files: dict[Key, _File] = field(default_factory=dict)
    folders: dict[str, Identity] = field(default_factory=dict)
    links: dict[str, Identity] = field(default_factory=dict)
    dangling: set[str] = field(default_factory=set)
    caches: dict[str, set[str]] = field(default_factory=dict)
    _checks: list[tuple[str, int, int]] = field(default_factory=list)

    def is_current(self) -> bool:
        """Tell whether nothing at all was changed since; costs a stat for each file and folder."""
        if not self._checks:
            self._checks = [(file.path, file.identity[1], file.identity[-1]) for file in self.files.values()]
        try:
            # Written for speed: each artifact pays for it twice. Whatever changes a file changes its last time.
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

    def is_same(self, other: _Look) -> bool:
        """Tell whether nothing that counts was changed between two looks; that Python cached what it compiled does not.

        A folder that has a new cache has a new time for that reason.
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

    def names_of_changes(self, other: _Look) -> list[str]:
        """Return what differs between two looks, as paths below the tool's folders."""
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
        """Return how long to wait until another change must show; 0 when it does already."""
        age_ns = self._age_ns()
        tick_ns = _TICK_NS if (self.began_ns - age_ns) % 1_000_000_000 else _COARSE_TICK_NS
        # Times in the far future are of a clock that was set back; they never come close.
        return min(tick_ns - age_ns, tick_ns) if -1_000_000_000 < age_ns < tick_ns else 0


def _file_identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _folder_identity(status: os.stat_result) -> Identity:
    # Some file systems number a folder anew while it is mounted.
    return status.st_mtime_ns, status.st_ctime_ns


def _look(folders: Sequence[str]) -> _Look:
    """Look at the folders, at a moment after which any change shows."""
    for _ in range(_MOST_TRIES):
        look = _Look(time.time_ns())
        for number, folder in enumerate(folders):
            status = os.stat(folder)  # noqa: PTH116
            if stat.S_ISREG(status.st_mode):
                look.files[number, os.path.basename(folder)] = _File(folder, _file_identity(status))  # noqa: PTH119
            else:
                _walk(look, number, folder, "", frozenset())
        settling_ns = look.settling_ns()
        if not settling_ns:
            break
        time.sleep(settling_ns / 1e9)
    return look


def _walk(look: _Look, number: int, folder: str, relative: str, above: frozenset[tuple[int, int]]) -> None:
    """Add what is in a folder, links followed but not round in a circle."""
    status = os.stat(folder)  # noqa: PTH116 - text is much faster, and there are many
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    look.folders[folder] = _folder_identity(status)
    caches = look.caches.setdefault(folder, set())
    with os.scandir(folder) as listed:
        entries = list(listed)
    for entry in entries:
        if entry.name in _IGNORED:
            caches.add(entry.name)
        elif not _add(look, number, entry, f"{relative}{entry.name}"):
            _walk(look, number, entry.path, f"{relative}{entry.name}/", above | {here})


def _add(look: _Look, number: int, entry: os.DirEntry[str], relative: str) -> bool:
    """Add one entry; False for a folder, which is to be walked."""
    try:
        if entry.is_symlink():
            look.links[entry.path] = _file_identity(os.lstat(entry.path))
        status = os.stat(entry.path)  # noqa: PTH116
    except OSError:
        look.dangling.add(entry.path)
        return True
    if stat.S_ISREG(status.st_mode):
        look.files[number, relative] = _File(entry.path, _file_identity(status))
    return not stat.S_ISDIR(status.st_mode)


def _digests(look: _Look, known: Sources | None) -> dict[Key, str]:
    """Return the sha256 of each file; what has not changed since `known` is not read again."""
    digests = {}
    for key, file in look.files.items():
        if known is not None and known.look.files.get(key) == file:
            digests[key] = known.digests[key]
        else:
            with open(file.path, "rb") as content:  # noqa: PTH123
                digests[key] = hashlib.file_digest(content, "sha256").hexdigest()
    return digests


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a tool's folders as they were at one moment; a single file may stand in the place of a folder."""

    folders: tuple[str, ...]
    look: _Look
    digests: Mapping[Key, str]

    @classmethod
    def read(cls, folders: Iterable[Path], known: Sources | None = None) -> Sources:
        """Read the files, again if they are changed meanwhile; raise OSError for one that cannot be read."""
        texts = tuple(str(folder) for folder in folders)
        tries = 0
        while True:
            tries += 1
            try:
                look = _look(texts)
                sources = cls(texts, look, _digests(look, known))
            except (FileNotFoundError, NotADirectoryError):
                if tries >= _MOST_TRIES:
                    raise
                continue
            # What is changed all the time differs from this at the next look, too.
            if tries >= _MOST_TRIES or look.is_current():
                return sources

    def again(self) -> Sources:
        """Read anew what has changed."""
        return Sources.read([Path(folder) for folder in self.folders], self)

    def is_current(self) -> bool:
        """Tell whether nothing at all was changed since; fast."""
        return self.look.is_current()

    def is_same(self, other: Sources) -> bool:
        """Tell whether nothing that counts was changed between the two moments."""
        return self.look.is_same(other.look)

    def changes(self, other: Sources) -> list[str]:
        """Return the paths of the files that were touched between the two moments."""
        return self.look.names_of_changes(other.look)

    def differences(self, other: Sources) -> list[str]:
        """Return the paths of the files whose content differs."""
        keys = self.digests.keys() | other.digests.keys()
        return [key[1] for key in sorted(keys) if self.digests.get(key) != other.digests.get(key)]

    def hash_into(self, version: hashlib._Hash) -> None:
        """Add each file's place and content, in the order of their paths."""
        for number, relative in sorted(self.digests, key=lambda key: (key[0], key[1].split("/"))):
            line = f"{number} {relative} {self.digests[number, relative]}\n"
            version.update(line.encode("utf-8", "surrogateescape"))

    def remove_stale_bytecode(self) -> None:
        """Remove what Python compiled before its source was last changed, or just after.

        Python compares the source's size and time, in whole seconds; both can be those of another content.
        """
        for file in self.look.files.values():
            folder, name = os.path.split(file.path)
            if name.endswith(".py") and (sys.pycache_prefix or "__pycache__" in self.look.caches.get(folder, ())):
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
            # What cannot be removed could not be written, either.
            continue
