"""Describe in one line why a project file cannot be loaded: file, line, error and source line.

Tool containers, pipeline containers, `bonseyes up` and `bonseyes check` use it.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from bonseyes_dagster.errors import BonseyesError

__all__ = ["describe_code_error"]

_INSTALLED = ("site-packages", "dist-packages")


def describe_code_error(error: BaseException, folders: Iterable[Path]) -> str:
    """Return `FILE:LINE: ERROR: SOURCE LINE`, or `ERROR` alone when no frame of the traceback lies in `folders`.

    The place is the innermost frame in one of `folders`. For a syntax error it is the wrong line.
    """
    if isinstance(error, BonseyesError):
        return error.message
    summary = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return _with_place(error.filename, error.lineno, summary, error.text)
    frame = next((each for each in _frames(error) if _is_inside(each.filename, folders)), None)
    if frame is None:
        return summary
    return _with_place(frame.filename, frame.lineno, summary, linecache.getline(frame.filename, frame.lineno or 0))


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """Yield the frames of an error, the innermost first, then the frames of its cause or context, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield from reversed(traceback.extract_tb(current.__traceback__))
        current = current.__cause__ or current.__context__


def _is_inside(file: str, folders: Iterable[Path]) -> bool:
    if file.startswith("<"):  # `<frozen os>` is not a file; as a path it would lie in the working folder
        return False
    path = Path(file).absolute()
    is_installed = any(part in _INSTALLED for part in path.parts)
    return not is_installed and any(path.is_relative_to(folder.absolute()) for folder in folders)


def _with_place(file: str, line: int | None, summary: str, source: str | None) -> str:
    text = (source or "").strip()
    return f"{file}:{line}: {summary}" + (f": {text}" if text else "")
