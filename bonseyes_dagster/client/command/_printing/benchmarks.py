"""Read the metrics and verdicts of a run's benchmarks from their reports; print them when the wait for the run ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.client.command._printing.output import clean, print_note
from bonseyes_dagster.errors import BonseyesError

__all__ = ["print_benchmarks", "read_benchmarks"]

_REPORT = "report.json"
_VERDICTS = ("evaluation_criterias", "constraints")
_KEYS = ("passed", "metrics", *_VERDICTS)


def read_benchmarks(run: Artifact) -> dict[str, dict[str, Any]]:
    """Return `passed`, `metrics` and the verdicts of each benchmark of a completed run, by its step.

    An unreadable report causes only a note on standard error, because the run itself is completed.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        for entry in run.manifest().files:
            step, _, file = entry.path.rpartition("/")
            if file == _REPORT and step and "/" not in step:
                report = json.loads(run.read(entry.path))
                if isinstance(report, dict):
                    found[step] = {key: report[key] for key in _KEYS if key in report}
    except (BonseyesError, ValueError) as error:
        print_note(f"The benchmark cannot be shown: {str(error).rstrip('.')}.")
    return found


def print_benchmarks(benchmarks: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the metrics of each benchmark, and a line for each criterion and constraint."""
    for step, report in benchmarks.items():
        metrics = _mapping(report.get("metrics"))
        verdicts = [entry for key in _VERDICTS for entry in _list(report.get(key))]
        if not metrics and not verdicts:
            continue
        passed = {True: " passed", False: " FAILED"}.get(report.get("passed", ""), "")
        click.echo(clean(f"\n{step}{passed if verdicts else ''}"))
        width = max((len(str(name)) for name in metrics), default=0)
        for name, value in metrics.items():
            click.echo(clean(f"  {name:<{width}}  {_number(value)}"))
        for verdict in verdicts:
            click.echo(clean(f"  {'passed' if verdict.get('passed') else 'FAILED'}: {_sentence(verdict)}"))


def _sentence(verdict: Mapping[str, Any]) -> str:
    name, reason = verdict.get("name", verdict.get("metric", "")), verdict.get("reason")
    if reason:
        return f"{name}: {reason}"
    limits = [
        f"{bound} {_number(verdict[bound])}" for bound in ("minimum", "maximum") if verdict.get(bound) is not None
    ]
    return f"{name}: {', '.join([_number(verdict.get('value')), *limits])}"


def _number(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.6g}" if is_number else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
