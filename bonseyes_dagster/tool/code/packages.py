"""The installed packages, which are part of a tool's version: listed at the start, watched while the container runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Packages"]

_Times = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages in each folder of `sys.path`; the names of their metadata folders hold name and version."""

    folders: Mapping[str, _Times | None]
    installed: Mapping[str, tuple[int, int, int]]

    @classmethod
    def read(cls, folders: Sequence[str] | None = None) -> Packages:
        """List the folders, by default those of `sys.path`. Reading all packages' metadata would take a second."""
        names = [entry for entry in sys.path if entry] if folders is None else folders
        # Read the times first: the next check then finds packages that are installed during this one.
        times = {name: _times(name) for name in names}
        return cls(times, dict(found for name in names for found in _installed(name)))

    @property
    def names(self) -> list[str]:
        """Return the names of the packages' metadata folders, sorted."""
        return sorted({Path(path).name for path in self.installed})

    def is_current(self) -> bool:
        """Tell whether no folder has changed since; this is fast."""
        return all(_times(folder) == known for folder, known in self.folders.items())

    def again(self) -> Packages:
        """List the same folders anew."""
        return Packages.read([*self.folders])


def _times(folder: str) -> _Times | None:
    try:
        status = os.stat(folder)  # noqa: PTH116 - called for each artifact, must be fast
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns


def _installed(folder: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".dist-info"):
                    status = entry.stat()
                    yield entry.path, (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    except OSError:
        return
