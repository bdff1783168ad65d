"""Read all readable rows of a damaged index from a copy of the file. A damaged page hides only the rows on it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import get_args

from bonseyes_dagster.model import Phase
from bonseyes_dagster.tool.artifacts.index import READ_ERRORS, ArtifactRow, Index, parse_row, select_rows
from bonseyes_dagster.tool.artifacts.row_copies import RowDamagedError, check_row

__all__ = ["COPIES", "salvage"]

# The names of the folders for copies of a damaged index begin so.
COPIES = ".salvage-"
_SUFFIXES = ("", "-wal")
_PAGE_SIZE_AT = slice(16, 18)
# The rows from both ends may leave a gap of numbers. Numbers in a larger gap are not looked up one by one.
_MOST_LOOKUPS = 200_000


def salvage(index: Path) -> dict[str, ArtifactRow]:
    """Return the readable rows of a damaged index by id; the index itself is not changed.

    Rows with impossible values are left out.
    """
    found: dict[str, ArtifactRow] = {}
    with tempfile.TemporaryDirectory(dir=index.parent, prefix=COPIES) as folder:
        copy = Path(folder, "copy.sqlite")
        for with_new_head in (False, True):
            if _copy(index, copy, with_new_head=with_new_head):
                for row in _rows(copy):
                    found.setdefault(row.id, row)
    return found


def _copy(index: Path, copy: Path, *, with_new_head: bool) -> bool:
    """Copy the index and its log; with `with_new_head`, replace the first page by that of a new index.

    The first page says on which pages the tables begin. They begin on the same pages in every index.
    """
    for suffix in (*_SUFFIXES, "-shm"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{index}{suffix}", f"{copy}{suffix}")
    log = copy.with_name(f"{copy.name}-wal")
    is_empty = not copy.exists() or copy.stat().st_size == 0
    if is_empty and (not log.exists() or log.stat().st_size == 0):
        return False
    if not with_new_head:
        return not is_empty
    head = _new_head(copy.with_name("new.sqlite"))
    with copy.open("r+b" if copy.exists() else "w+b") as file:
        file.write(head)
        size_bytes = max(copy.stat().st_size, len(head))
        # Write the number of pages, and the change counter that makes this number valid.
        file.seek(28)
        file.write((size_bytes // len(head)).to_bytes(4, "big"))
        file.seek(92)
        file.write(head[24:28])
    return True


def _new_head(path: Path) -> bytes:
    Index(path, is_alone=True).make()
    content = path.read_bytes()
    return content[: int.from_bytes(content[_PAGE_SIZE_AT], "big")]


def _rows(copy: Path) -> Iterator[ArtifactRow]:
    try:
        connection = sqlite3.connect(copy, isolation_level=None)
    except READ_ERRORS:
        return
    # Read texts as bytes: text that is no UTF-8 must then lose only its own row.
    connection.text_factory = bytes
    with closing(connection):
        select = select_rows(connection)
        if select is None:
            return
        seen: set[int] = set()
        for query, values in _walks(connection, select, seen):
            for columns in _read(connection, query, values):
                number = columns[0]
                if isinstance(number, int) and number not in seen:
                    seen.add(number)
                    with suppress(RowDamagedError, ValueError, TypeError):
                        row = parse_row(columns)
                        check_row(row)
                        yield row


def _walks(connection: sqlite3.Connection, select: str, seen: set[int]) -> Iterator[tuple[str, tuple[int | str, ...]]]:
    """Yield queries; each one may find rows that the queries before it did not reach."""
    yield f"{select} ORDER BY seq", ()
    yield f"{select} ORDER BY seq DESC", ()
    numbers: set[int] = set()
    for phase in get_args(Phase):
        listed = "SELECT seq FROM artifacts INDEXED BY by_phase WHERE phase = ?"
        numbers.update(row[0] for row in _read(connection, listed, (phase,)) if isinstance(row[0], int))
    low, high = min(seen | numbers, default=1), max(seen | numbers, default=0)
    if high - low < _MOST_LOOKUPS:
        numbers.update(range(max(1, low), high + 1))
    for number in sorted(numbers - seen):
        yield f"{select} WHERE seq = ?", (number,)


def _read(connection: sqlite3.Connection, query: str, values: Iterable[int | str]) -> Iterator[tuple[object, ...]]:
    """Yield rows until the first one that cannot be read."""
    with suppress(*READ_ERRORS):
        yield from connection.execute(query, tuple(values))
