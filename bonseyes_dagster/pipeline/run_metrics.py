"""The scalar metrics of a run: the duration of each step, and the last values of its benchmark's metrics."""

from __future__ import annotations

from bonseyes_dagster.orchestration.runs.states import RunState
from bonseyes_dagster.urls import is_metric_name

__all__ = ["metric_lines"]


def metric_lines(state: RunState) -> dict[str, bytes]:
    """Return the line `UNIX_TIME STEP VALUE` of each metric that has a value so far."""
    lines: dict[str, bytes] = {}
    for step in state.steps:
        ended = step.stats.end_time if step.stats else None
        if ended is None:
            continue
        for metric, value in {"duration_s": step.duration_s, **step.metrics}.items():
            name = f"{step.name}.{metric}"
            if value is not None and is_metric_name(name):
                lines[name] = f"{ended:.3f} 0 {value!r}\n".encode()
    return lines
