"""The output of `bonseyes up` and `bonseyes status`: a live table on a terminal, a line for each change elsewhere."""

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
from bonseyes_dagster.project.state import ProjectState, ServiceState

__all__ = ["Display", "lines", "show"]

_STYLES = {"healthy": "green", "starting": "yellow", "waiting": "dim", "stopped": "dim"}
_SIGNS = {"healthy": "✓", "starting": "…", "waiting": "…", "stopped": "·"}


class Display:
    """Shows each new state of a project."""

    def __init__(self, live: Live | None, *, as_json: bool = False) -> None:
        self._live = live
        self._as_json = as_json
        self._is_announced = False
        self._seen: dict[str, tuple[str, int]] = {}

    def update(self, project_state: ProjectState) -> None:
        """Show a new state."""
        if self._live is not None:
            reasons = (Text(f"{service.name}: {service.reason}", "red") for service in project_state.broken)
            self._live.update(Group(_table(project_state), Text(summary(project_state)), *reasons))
            return
        if not self._as_json:
            for service in project_state.services:
                self._print_change(service)
        if project_state.seconds is not None and not self._is_announced:
            self._is_announced = True
            sys.stdout.write(json.dumps(project_state.to_json()) if self._as_json else summary(project_state))
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _print_change(self, service: ServiceState) -> None:
        now = (service.state, service.restarts)
        if self._seen.get(service.name) == now or service.state in ("waiting", "starting", "stopped"):
            return
        self._seen[service.name] = now
        sys.stdout.write(_line(service) + "\n")
        sys.stdout.flush()


@contextmanager
def show(*, as_json: bool = False) -> Iterator[Display]:
    """Show a start in progress; with `as_json`, print only the final state, as one JSON document."""
    console = Console()
    if as_json:
        yield Display(None, as_json=True)
        return
    if not console.is_terminal:
        yield Display(None)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield Display(live)


def lines(project_state: ProjectState) -> list[str]:
    """Return a state as plain lines, without colours."""
    return [*(_line(service) for service in project_state.services), summary(project_state)]


def summary(project_state: ProjectState) -> str:
    """Return one sentence with the number of healthy services and the URL of the project."""
    healthy = sum(service.state == "healthy" for service in project_state.services)
    if project_state.phase == "stopping":
        return "Stopping."
    if project_state.phase == "up" and project_state.broken and project_state.is_settled:
        names = ", ".join(service.name for service in project_state.broken)
        return f"{healthy} of {len(project_state.services)} services are healthy; the code of {names} cannot be loaded."
    if project_state.phase == "starting" or healthy < len(project_state.services):
        return f"{healthy} of {len(project_state.services)} services are healthy."
    seconds = f" after {project_state.seconds:.1f} s" if project_state.seconds is not None else ""
    return f"All {healthy} services are healthy{seconds}: {project_state.url}"


def _line(service: ServiceState) -> str:
    seconds = f"{service.seconds:.1f} s" if service.seconds is not None else ""
    restarts = f"restarted {service.restarts} x" if service.restarts else ""
    details = "  ".join(part for part in (service.url, restarts, service.reason) if part)
    return clean(f"{service.name:<20} {service.state:<10} {seconds:>7}  {details}".rstrip())


def _table(project_state: ProjectState) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for service in project_state.services:
        style = _STYLES.get(service.state, "red")
        seconds = f"{service.seconds:.1f} s" if service.seconds is not None else ""
        table.add_row(
            Text(_SIGNS.get(service.state, "✗"), style),
            service.name,
            Text(service.state, style),
            Text(seconds, justify="right"),
            Text(urlsplit(service.url or "").path, "dim"),  # the whole URL would be too wide
            Text(clean(service.reason or ""), "dim", overflow="ellipsis", no_wrap=True),
        )
    return table
