"""Scalar metrics on disk: one append-only file per metric, one line `UNIX_TIME STEP VALUE` per point."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.formats.metric_lines import parse_point
from bonseyes_dagster.tool.artifacts.logs import FARTHEST_OFFSET
from bonseyes_dagster.urls import is_metric_name, is_name

__all__ = ["MetricsWriter", "iter_metric", "metric_names", "skipped_lines"]

_log = logging.getLogger("bonseyes_dagster.tool")
_CHUNK_BYTES = 1 << 18
_SHOWN_BYTES = 80
_LONGEST_FILE_NAME = 255
_KEPT_CHARACTERS = 100
_ASCII = 128


class MetricsWriter:
    """Appends points to files. Each point is one `write`, so a reader never sees half a line of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}

    def add(self, name: str, step: int, value: float) -> None:
        """Append one point with the current time; raise ValueError if `value` is no number."""
        line = f"{time.time():.6f} {int(step)} {float(value)!r}\n".encode()
        descriptor = self._files.get(name)
        if descriptor is None:
            descriptor = self._files[name] = self._open(name)
        os.write(descriptor, line)

    def _open(self, name: str) -> int:
        safe = safe_name(name)
        if safe != name:
            _log.warning("%r is no valid name of a metric; its points get the name %r.", name, safe)
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._folder / _file_name(safe), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()


def safe_name(name: str) -> str:
    """Return `name` if it can name a metric, else a valid name that has as many of its characters as possible."""
    if is_metric_name(name) and len(_file_name(name)) <= _LONGEST_FILE_NAME:
        return name
    kept = "".join(character if character.isascii() and character.isalnum() else "_" for character in name)
    # Different names must stay different, or two metrics would become one curve.
    return f"m{kept[:_KEPT_CHARACTERS]}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _file_name(name: str) -> str:
    """Return the name of a metric's file: the metric's name if `is_name` accepts it, else percent-encoded."""
    if is_name(name):
        return name
    encoded = name.encode()
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < _ASCII) or (place and byte in b"_-") else f"%{byte:02X}"
        for place, byte in enumerate(encoded)
    )


def _metric_name(file_name: str) -> str | None:
    """Return the metric of a file; a program may have used the metric's name without encoding it."""
    if is_name(file_name):
        return file_name
    with suppress(ValueError):
        name = unquote(file_name, errors="strict")
        if is_metric_name(name) and _file_name(name) == file_name:
            return name
    is_literal = is_metric_name(file_name) and "%" not in file_name
    return file_name if is_literal else None


def _path(folder: Path, name: str) -> Path:
    """Return the file of a metric; raise FileNotFoundError if `name` cannot name a metric."""
    if not is_metric_name(name):
        raise FileNotFoundError(name)
    encoded = folder / _file_name(name)
    is_literal = "/" not in name and "%" not in name and not encoded.exists()
    return folder / name if is_literal else encoded


def metric_names(folder: Path) -> list[str]:
    """Return the names of the metrics that have points."""
    try:
        with os.scandir(folder) as entries:
            names = {
                _metric_name(entry.name)
                for entry in entries
                if entry.is_file(follow_symlinks=False) and entry.stat().st_size
            }
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name is not None)


def iter_metric(folder: Path, name: str, offset: int) -> Iterator[bytes]:
    """Yield whole lines of a metric from byte `offset`; raise NotFoundError at once if there is no such metric."""
    try:
        descriptor = os.open(_path(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise NotFoundError(f"There is no metric {name!r}.") from None
    return _lines(descriptor, offset)


def skipped_lines(folder: Path) -> Iterator[str]:
    """Yield a sentence for each metric with lines that are no points; readers skip these lines of a program."""
    for name in metric_names(folder):
        with _path(folder, name).open("rb") as file:
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
