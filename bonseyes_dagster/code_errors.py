"""One line about a project file that cannot be loaded: file, line, source line and error.

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
    """Return `FILE:LINE: ERROR: SOURCE LINE`; the place is the last frame in one of `folders`, if there is one."""
    if isinstance(error, BonseyesError):
        return error.message
    told = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return _placed(error.filename, error.lineno, told, error.text)
    frame = next((each for each in _frames(error) if _is_inside(each.filename, folders)), None)
    if frame is None:
        return told
    return _placed(frame.filename, frame.lineno, told, linecache.getline(frame.filename, frame.lineno or 0))


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    """Yield the frames of an error, the innermost first, and then those of the errors that it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield from reversed(traceback.extract_tb(current.__traceback__))
        current = current.__cause__ or current.__context__


def _is_inside(file: str, folders: Iterable[Path]) -> bool:
    if file.startswith("<"):  # `<frozen os>` is no file, not even one of the working folder
        return False
    path = Path(file).absolute()
    is_installed = any(part in _INSTALLED for part in path.parts)
    return not is_installed and any(path.is_relative_to(folder.absolute()) for folder in folders)


def _placed(file: str, line: int | None, told: str, source: str | None) -> str:
    text = (source or "").strip()
    return f"{file}:{line}: {told}" + (f": {text}" if text else "")
