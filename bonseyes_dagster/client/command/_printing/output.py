"""How things are printed: tables for people, lines for pipes, JSON for programs."""

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

# Texts that may take several lines, and the least width that each needs.
_FLOWING = {"DESCRIPTION": 20, "DEFAULT": 8}
_GAP = 1


def clean(text: str) -> str:
    """Return `text` without what could steer a terminal: it came from a server."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def print_json(value: Any) -> None:
    """Print one JSON document; a number that JSON does not have is null."""
    text = format_json(value, indent=2, ensure_ascii=not _speaks_unicode())
    # JSON itself escapes less than terminals obey: not U+009B, which begins an escape sequence.
    click.echo(text if text.isascii() and "\x7f" not in text else "".join(map(_in_json, text)))


def _in_json(character: str) -> str:
    is_shown = character.isprintable() or character == "\n"
    return character if is_shown else json.dumps(character)[1:-1].replace("\x7f", "\\u007f")


def print_note(text: str) -> None:
    """Say something beside the result, on standard error."""
    click.echo(clean(text), err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: Collection[str] = ()) -> None:
    """Print rows under headings: fitted to a terminal, or whole lines with tabs for other programs.

    The columns `names` (the first one by default) are whole on every terminal. Of the others, those that a terminal has
    no room for are left out, the last ones first.
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
        # The terminal itself wraps what is longer than a line, and a copy of it is still one word.
        click.echo("\n".join([columns[shown[0]], *(row[shown[0]] for row in cells)]))
    else:
        console.print(_table(columns, cells, shown))
    hidden = [column for number, column in enumerate(columns) if number not in shown]
    if hidden:
        print_note(f"A wider terminal or --json has {', '.join(hidden)}, too.")


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
    """Return the numbers of the columns that fit into `width` characters; those in `names` are always there."""
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
    """Print `name: value` lines, aligned; those without a value are left out."""
    shown = [(name, _text(value)) for name, value in fields if value not in (None, "", [], {}, ())]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        lines = clean(text).splitlines() or [""]
        click.echo(f"{clean(name):<{width}}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<{width}}  {line}")


def size(size_bytes: int | None) -> str:
    """Return `12.3 MB`."""
    if size_bytes is None:
        return ""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def age(moment: str | None) -> str:
    """Return how long ago a timestamp of the contract was."""
    then = _moment(moment)
    return f"{_span((datetime.now(UTC) - then).total_seconds())} ago" if then else ""


def duration(started: str | None, finished: str | None) -> str:
    """Return the time between two timestamps; up to now without the second."""
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


def _speaks_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
