"""What `bonseyes up` and `bonseyes status` show: a table that lives on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bonseyes_dagster.client.command import clean
from bonseyes_dagster.project.record import Record, ServiceRecord

__all__ = ["Display", "lines", "show"]

_STYLES = {"healthy": "green", "starting": "yellow", "waiting": "dim", "stopped": "dim"}
_SIGNS = {"healthy": "✓", "starting": "…", "waiting": "…", "stopped": "·"}


class Display:
    """Shows each record it is given."""

    def __init__(self, live: Live | None, *, as_json: bool = False) -> None:
        self._live = live
        self._as_json = as_json
        self._is_announced = False
        self._seen: dict[str, tuple[str, int]] = {}

    def update(self, record: Record) -> None:
        """Show the record."""
        if self._live is not None:
            reasons = (Text(f"{service.name}: {service.reason}", "red") for service in record.broken)
            self._live.update(Group(_table(record), Text(summary(record)), *reasons))
            return
        if not self._as_json:
            for service in record.services:
                self._print_change(service)
        if record.seconds is not None and not self._is_announced:
            self._is_announced = True
            sys.stdout.write(json.dumps(record.to_json()) if self._as_json else summary(record))
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _print_change(self, service: ServiceRecord) -> None:
        now = (service.state, service.restarts)
        if self._seen.get(service.name) == now or service.state in ("waiting", "starting", "stopped"):
            return
        self._seen[service.name] = now
        sys.stdout.write(_line(service) + "\n")
        sys.stdout.flush()


@contextmanager
def show(*, as_json: bool = False) -> Iterator[Display]:
    """Show a start in progress, or with `as_json` its end alone, as one document."""
    console = Console()
    if as_json:
        yield Display(None, as_json=True)
        return
    if not console.is_terminal:
        yield Display(None)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield Display(live)


def lines(record: Record) -> list[str]:
    """Return the record as plain lines, without colours."""
    return [*(_line(service) for service in record.services), summary(record)]


def summary(record: Record) -> str:
    """Return the sentence that says how the project is, and where."""
    healthy = sum(service.state == "healthy" for service in record.services)
    if record.phase == "stopping":
        return "Stopping."
    if record.phase == "up" and record.broken and record.is_settled:
        names = ", ".join(service.name for service in record.broken)
        return f"{healthy} of {len(record.services)} services are healthy; the code of {names} cannot be loaded."
    if record.phase == "starting" or healthy < len(record.services):
        return f"{healthy} of {len(record.services)} services are healthy."
    seconds = f" after {record.seconds:.1f} s" if record.seconds is not None else ""
    return f"All {healthy} services are healthy{seconds}: {record.url}"


def _line(service: ServiceRecord) -> str:
    seconds = f"{service.seconds:.1f} s" if service.seconds is not None else ""
    restarts = f"restarted {service.restarts} x" if service.restarts else ""
    details = "  ".join(part for part in (service.url, restarts, service.reason) if part)
    return clean(f"{service.name:<20} {service.state:<10} {seconds:>7}  {details}".rstrip())


def _table(record: Record) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for service in record.services:
        style = _STYLES.get(service.state, "red")
        seconds = f"{service.seconds:.1f} s" if service.seconds is not None else ""
        table.add_row(
            Text(_SIGNS.get(service.state, "✗"), style),
            service.name,
            Text(service.state, style),
            Text(seconds, justify="right"),
            Text(urlsplit(service.url or "").path, "dim"),  # whole, it would not fit beside the rest
            Text(clean(service.reason or ""), "dim", overflow="ellipsis", no_wrap=True),
        )
    return table
