"""Print results: tables for people, lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from bonseyes_dagster.formats.json_text import format_json

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["age", "clean", "duration", "print_fields", "print_json", "print_note", "print_table", "size"]

# Columns whose text may take several lines, and the smallest width of each.
_FLOWING = {"DESCRIPTION": 20, "DEFAULT": 8}
_GAP = 1


def clean(text: str) -> str:
    """Return the text of a server without the characters that control a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def print_json(value: Any) -> None:
    """Print one JSON document; NaN and infinity become null."""
    text = format_json(value, indent=2, ensure_ascii=not _is_utf8())
    # JSON does not escape every character that controls a terminal: U+009B begins an escape sequence, too.
    click.echo(text if text.isascii() and "\x7f" not in text else "".join(map(_in_json, text)))


def _in_json(character: str) -> str:
    is_shown = character.isprintable() or character == "\n"
    return character if is_shown else json.dumps(character)[1:-1].replace("\x7f", "\\u007f")


def print_note(text: str) -> None:
    """Print a hint or a warning to standard error, apart from the result."""
    click.echo(clean(text), err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: Collection[str] = ()) -> None:
    """Print rows: as a table that fits the terminal, or as lines with tabs for other programs.

    The table shows the columns `names` (by default the first column) whole. When the terminal is too narrow, it leaves
    out other columns, the last ones first.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console

    console = Console()
    shown = _fitting(columns, cells, names or columns[:1], console.width)
    if len(shown) == 1:
        # The terminal itself wraps a long name, so that a copy of the name is still one word.
        click.echo("\n".join([columns[shown[0]], *(row[shown[0]] for row in cells)]))
    else:
        console.print(_table(columns, cells, shown))
    hidden = [column for number, column in enumerate(columns) if number not in shown]
    if hidden:
        print_note(f"A wider terminal or --json also shows {', '.join(hidden)}.")


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]], shown: Sequence[int]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number in shown:
        table.add_column(columns[number], overflow="fold", no_wrap=columns[number] not in _FLOWING)
    for row in cells:
        table.add_row(*(Text(row[number]) for number in shown))
    return table


def _fitting(columns: Sequence[str], cells: Sequence[Sequence[str]], names: Collection[str], width: int) -> list[int]:
    """Return the indexes of the columns that fit into `width` characters, and always those in `names`."""
    from rich.cells import cell_len

    widths = [
        max(cell_len(text) for text in (column, *column_cells))
        for column, *column_cells in zip(columns, *cells, strict=True)
    ]
    widths = [min(each, _FLOWING.get(column, each)) for column, each in zip(columns, widths, strict=True)]
    shown = list(range(len(columns)))
    while sum(widths[number] for number in shown) + _GAP * (len(shown) - 1) > width:
        spare = [number for number in shown if columns[number] not in names]
        if not spare:
            break
        shown.remove(spare[-1])
    return shown


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print aligned lines of name and value; leave out fields without a value."""
    shown = [(name, _text(value)) for name, value in fields if value not in (None, "", [], {}, ())]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        lines = clean(text).splitlines() or [""]
        click.echo(f"{clean(name):<{width}}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {line}")


def size(size_bytes: int | None) -> str:
    """Return a number of bytes as text, such as `12.3 MB`."""
    if size_bytes is None:
        return ""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def age(moment: str | None) -> str:
    """Return the age of a timestamp as text, such as `3 min ago`."""
    then = _moment(moment)
    return f"{_span((datetime.now(UTC) - then).total_seconds())} ago" if then else ""


def duration(started: str | None, finished: str | None) -> str:
    """Return the time between two timestamps as text; without `finished`, up to now."""
    first, last = _moment(started), _moment(finished) or datetime.now(UTC)
    return _span((last - first).total_seconds()) if first else ""


def _span(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min"
    return f"{seconds // 3600:.0f} h" if seconds < 172_800 else f"{seconds // 86_400:.0f} days"


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_utf8() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
