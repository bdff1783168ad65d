"""Show progress during a wait: a bar for each step on a terminal, plain lines elsewhere, nothing with `--json`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.client.command._printing.output import clean, duration, print_note, size
from bonseyes_dagster.client.command._state import State
from bonseyes_dagster.model import TERMINAL_PHASES, Progress, Status

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["show_bytes", "summary", "wait"]

OnStatus = Callable[[Status], None]

_LINE_EVERY_S = 10.0


def wait(state: State, artifact: Artifact, timeout_s: float | None = None) -> Status:
    """Wait for an artifact or a run, and show its progress; on Ctrl-C, print how to watch it again."""
    watch: AbstractContextManager[OnStatus | None] = _bars() if sys.stderr.isatty() else nullcontext(_Lines())
    if state.json:
        watch = nullcontext(None)
    try:
        with watch as on_status:
            return artifact.wait(timeout_s, on_status)
    except KeyboardInterrupt:
        noun, group = ("run", "runs") if artifact.container.kind == "runs" else ("artifact", "artifact")
        address = f"{artifact.container.name}/{artifact.name}"
        print_note(
            f"\nThe {noun} goes on. To watch it: bonseyes {group} wait {address}\n"
            f"To cancel it: bonseyes {group} cancel {address}"
        )
        raise


@contextmanager
def show_bytes(state: State, label: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show a bar during a copy: yield a function of (done, total) bytes, or None without a terminal."""
    if state.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(clean(label), total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


class _Lines:
    """Prints a line when a phase changes, and a line with the progress every ten seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}
        self._last = time.monotonic()

    def __call__(self, status: Status) -> None:
        rows = [(step.name, step.phase, step.progress) for step in status.steps or () if step.is_selected]
        rows.append(("", status.phase, status.progress))
        is_due = time.monotonic() - self._last >= _LINE_EVERY_S
        for name, phase, progress in rows:
            has_changed = self._seen.get(name) != phase
            if has_changed or (is_due and phase == "running"):
                self._seen[name] = phase
                self._last = time.monotonic()
                print_note(" ".join(filter(None, [status.name, name, phase, _progress_text(progress)])))


def _progress_text(progress: Progress) -> str:
    if progress.done is None:
        return progress.message or ""
    total = f"/{progress.total:g}" if progress.total is not None else ""
    return " ".join(filter(None, [f"{progress.done:g}{total}", progress.unit, progress.message]))


@contextmanager
def _bars() -> Iterator[OnStatus]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[phase]}", markup=False),
        TextColumn("{task.fields[progress]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(status: Status) -> None:
            for step in filter(lambda step: step.is_selected, status.steps or ()):
                _draw(bars, tasks, step.name, step.phase, step.progress)
            if status.steps is None:
                _draw(bars, tasks, status.name, status.phase, status.progress)

        yield draw


def _draw(bars: Bars, tasks: dict[str, TaskID], name: str, phase: str, progress: Progress) -> None:
    has_ended = phase in TERMINAL_PHASES
    is_begun = has_ended or phase == "running"
    if name not in tasks:
        tasks[name] = bars.add_task(clean(name), start=is_begun, total=None, phase="", progress="")
    task = tasks[name]
    if is_begun and bars.tasks[bars.task_ids.index(task)].start_time is None:
        bars.start_task(task)
    total, done = progress.total, progress.done or 0.0
    if phase == "completed":
        total = done = total or 1.0
    elif total is None and phase != "running":
        # A bar without a total pulses, as if the step were running.
        total = 1.0
    bars.update(task, completed=done, total=total, phase=phase, progress=clean(_progress_text(progress)))
    if has_ended:
        bars.stop_task(task)


def summary(status: Status) -> str:
    """Return the line to print at the end of a wait."""
    took = duration(status.started or status.created, status.finished)
    reason = f": {status.reason}" if status.reason else ""
    facts = ", ".join(filter(None, [took, size(status.size) if status.phase == "completed" else ""]))
    return f"{status.name} {status.phase}{reason}" + (f" ({facts})" if facts else "")
