"""Scalar metrics on disk: one append-only file each, a line `UNIX_TIME STEP VALUE` for a point, whole lines only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.metric_lines import parse_point
from bonseyes_dagster.tool.logs import FARTHEST_OFFSET
from bonseyes_dagster.urls import is_name

__all__ = ["MetricsWriter", "iter_metric", "metric_names", "skipped_lines"]

_CHUNK_BYTES = 1 << 18
_SHOWN_BYTES = 80


class MetricsWriter:
    """Appends points; every point is one `write`, so a reader never sees half a line of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}

    def add(self, name: str, step: int, value: float) -> None:
        """Append one point at this moment; raise ValueError for a name or value that cannot be one."""
        line = f"{time.time():.6f} {int(step)} {float(value)!r}\n".encode()
        descriptor = self._files.get(name)
        if descriptor is None:
            descriptor = self._files[name] = self._open(name)
        os.write(descriptor, line)

    def _open(self, name: str) -> int:
        if not is_name(name):
            raise ValueError(f"{name!r} cannot name a metric: use letters, digits, '.', '_' and '-'")
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()


def metric_names(folder: Path) -> list[str]:
    """Return the names of the metrics that have points."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if is_name(entry.name) and entry.is_file(follow_symlinks=False) and entry.stat().st_size
            )
    except FileNotFoundError:
        return []


def iter_metric(folder: Path, name: str, offset: int) -> Iterator[bytes]:
    """Yield whole lines of a metric from a byte on; raise NotFoundError at once when there is no such metric."""
    try:
        if not is_name(name):
            raise FileNotFoundError
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise NotFoundError(f"There is no metric {name!r}.") from None
    return _lines(descriptor, offset)


def skipped_lines(folder: Path) -> Iterator[str]:
    """Yield a sentence for each metric with lines that are no points; a program wrote them, and readers skip them."""
    for name in metric_names(folder):
        with (folder / name).open("rb") as file:
            count, first = 0, b""
            for line in file:
                if line.strip() and parse_point(line) is None:
                    count, first = count + 1, first or line[:_SHOWN_BYTES]
        if count:
            lines = f"{count} lines that are" if count > 1 else "a line that is"
            shown = first.decode(errors="replace").strip()
            yield f"The metric {name!r} has {lines} no point, as {shown!r}: a point is `UNIX_TIME STEP VALUE`."


def _lines(descriptor: int, offset: int) -> Iterator[bytes]:
    with open(descriptor, "rb", buffering=0) as file:
        file.seek(min(offset, FARTHEST_OFFSET))
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield whole + newline
