"""Remove folders of any depth, without recursion and without long paths. `disk.py` calls this."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["remove_tree"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove a folder with its content. Files that cannot be removed stay, and no error is raised.

    A tool may nest folders too deep for Python's recursion, for a path, and for the number of descriptors. So one
    descriptor goes down into each folder, and up again by `..`.
    """
    with suppress(OSError):
        removal = _Removal(_open(os.fspath(path), None))
        try:
            removal.run()
        finally:
            os.close(removal.here)
    with suppress(OSError):
        path.rmdir()


def _open(name: str, parent: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        # The tool has removed its own permission.
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _FOLDER, dir_fd=parent)


@dataclass(slots=True)
class _Level:
    """One folder on the way down."""

    name: str
    identity: tuple[int, int]
    folders: list[str]
    """The subfolders that are not removed yet."""


@dataclass(slots=True)
class _Removal:
    """A removal in progress: `here` is the descriptor of the deepest of `levels`."""

    here: int
    levels: list[_Level] = field(default_factory=list)

    def run(self) -> None:
        """Empty the folder `here`; raise OSError if another process moves folders meanwhile."""
        self._enter("")
        while True:
            level = self.levels[-1]
            if level.folders:
                self._descend(level.folders.pop())
            elif len(self.levels) > 1:
                self._ascend()
            else:
                return

    def _descend(self, name: str) -> None:
        try:
            child = _open(name, self.here)
        except OSError:  # it stays
            return
        self._go(child)
        self._enter(name)

    def _go(self, descriptor: int) -> None:
        os.close(self.here)
        self.here = descriptor

    def _enter(self, name: str) -> None:
        """Remove all files in the folder `here`."""
        found = os.fstat(self.here)
        level = _Level(name, (found.st_dev, found.st_ino), [])
        self.levels.append(level)
        if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            with suppress(OSError):
                os.fchmod(self.here, 0o700)
        with suppress(OSError), os.scandir(self.here) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    level.folders.append(entry.name)
                else:
                    with suppress(OSError):
                        os.unlink(entry.name, dir_fd=self.here)

    def _ascend(self) -> None:
        """Go up one level, and remove the folder, which is empty now."""
        emptied = self.levels.pop()
        self._go(os.open("..", _FOLDER, dir_fd=self.here))
        found = os.fstat(self.here)
        if (found.st_dev, found.st_ino) != self.levels[-1].identity:
            raise FileNotFoundError(emptied.name)
        with suppress(OSError):
            os.rmdir(emptied.name, dir_fd=self.here)
