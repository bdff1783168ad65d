"""Finds the run that executed each step of a re-execution: the run itself, an earlier run, or none. states.py calls it.

A re-execution inherits a step from its parent only if it executes nothing that the step depends on. For example, a run
that trains a new model does not inherit the benchmark of the old model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from dagster import DagsterRun

from bonseyes_dagster.orchestration.runs.dagster_internals import RunRecord, RunStepKeyStatsSnapshot, StepEventStatus
from bonseyes_dagster.orchestration.runs.records import Records

__all__ = ["Lineage", "Origin", "executes_all", "mapping_key", "step_of"]

_MAPPED = re.compile(r"(.+)\[(.+)\]")
_Stats = Mapping[str, RunStepKeyStatsSnapshot]


def step_of(key: str) -> str:
    """Return the name of a step without the mapping key of a dynamic output."""
    return key.partition("[")[0]


def mapping_key(key: str) -> str:
    """Return the mapping key of a step that is mapped over a dynamic output; "" for any other step."""
    match = _MAPPED.fullmatch(key)
    return match[2] if match and match[2] != "?" else ""


def _any(key: str) -> str:
    return f"{step_of(key)}[?]"


@dataclass(frozen=True)
class Origin:
    """The run that executes a step, and the step's statistics in that run; None before the step has begun."""

    run: DagsterRun
    stats: RunStepKeyStatsSnapshot | None


@dataclass(frozen=True)
class _Plan:
    """The steps that a run executes and the dependencies of each step, by Dagster's keys.

    A key is `step`, `step[?]` or `step[key]`.
    """

    executed: frozenset[str]
    dependencies: Mapping[str, frozenset[str]]
    executes_all: bool

    def executes(self, key: str) -> bool:
        """Tell whether the run executes a step; for `step[?]`, whether it executes any of the mapped steps."""
        if self.executes_all or not {key, _any(key)}.isdisjoint(self.executed):
            return True
        return key == _any(key) and step_of(key) in map(step_of, self.executed)

    def makes_anew(self, key: str) -> bool:
        """Tell whether the run executes any step that this one depends on, directly or not."""
        waiting, seen = [key], {key}
        while waiting:
            current = waiting.pop()
            found = self.dependencies.get(current) or self.dependencies.get(_any(current)) or frozenset()
            if any(map(self.executes, found)):
                return True
            waiting += found - seen
            seen |= found
        return False


_EVERYTHING = _Plan(frozenset(), {}, executes_all=True)


class Lineage:
    """Finds the origin of each step of a run among the run and those that the run re-executes."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._instance = records.instance
        # A snapshot never changes, and equal runs share one.
        self._snapshot = lru_cache(maxsize=256)(self._read_snapshot)

    def origins(self, record: RunRecord, steps: Iterable[str]) -> dict[str, Origin]:
        """Return the origin of each step of a run, by Dagster's key; steps that were not selected are absent."""
        found: dict[str, Origin] = {}
        for each, plan in reversed(self._generations(record)):
            found = _origins(each, plan, self._stats(each.run_id), found, steps)
        return found

    def _generations(self, record: RunRecord) -> list[tuple[DagsterRun, _Plan]]:
        """Return the run, its parent and so on, up to the first run that executes all of its steps."""
        generations = []
        current: RunRecord | None = record
        while current is not None:
            run = current.dagster_run
            plan = self._plan(run)
            generations.append((run, plan))
            current = None if plan.executes_all else self._parent(current)
        return generations

    def _parent(self, record: RunRecord) -> RunRecord | None:
        """Return the parent of a run; None if the parent was deleted and a newer run has its name and id."""
        run_id = record.dagster_run.parent_run_id
        parent = self._records.by_id(run_id) if run_id else None
        return parent if parent and parent.create_timestamp <= record.create_timestamp else None

    def _plan(self, run: DagsterRun) -> _Plan:
        if executes_all(run):
            return _EVERYTHING
        if run.execution_plan_snapshot_id is None:
            return _Plan(frozenset(run.step_keys_to_execute or ()), {}, executes_all=False)
        return self._snapshot(run.execution_plan_snapshot_id)

    def _read_snapshot(self, snapshot_id: str) -> _Plan:
        snapshot = self._instance.get_execution_plan_snapshot(snapshot_id)
        dependencies = {key: frozenset(found) for key, found in snapshot.step_deps.items()}
        return _Plan(frozenset(snapshot.step_keys_to_execute or ()), dependencies, executes_all=False)

    def _stats(self, run_id: str) -> _Stats:
        return {stats.step_key: stats for stats in self._instance.get_run_step_stats(run_id)}


def executes_all(run: DagsterRun) -> bool:
    """Tell whether a run executes every step of its job, judged by the run's record alone."""
    selections = (run.step_keys_to_execute, run.resolved_op_selection, run.asset_selection, run.asset_check_selection)
    return all(selection is None for selection in selections)


def _origins(
    run: DagsterRun, plan: _Plan, stats: _Stats, inherited: Mapping[str, Origin], steps: Iterable[str]
) -> dict[str, Origin]:
    """Return the origins of one run's steps, from the origins of its parent's steps."""
    origins: dict[str, Origin] = {}
    for step in steps:
        origins |= _of_step(step, inherited, lambda key: _is_kept(plan, key, inherited[key]))
        origins |= {key: Origin(run, stats.get(key)) for key in _own_keys(step, plan, stats)}
    return origins


def _of_step(step: str, origins: Mapping[str, Origin], is_wanted: Callable[[str], bool]) -> dict[str, Origin]:
    return {key: origin for key, origin in origins.items() if step_of(key) == step and is_wanted(key)}


def _is_kept(plan: _Plan, key: str, origin: Origin) -> bool:
    """Tell whether the run inherits a step of its parent; the step must have succeeded there."""
    is_made = origin.stats is not None and origin.stats.status is StepEventStatus.SUCCESS
    return is_made and not plan.executes(key) and not plan.makes_anew(key)


def _own_keys(step: str, plan: _Plan, stats: _Stats) -> Iterable[str]:
    """Return the keys of a step that the run executes: its name, or later the keys of its mapped steps."""
    keys = [key for key in (*stats, *sorted(plan.executed)) if step_of(key) == step and mapping_key(key)]
    if keys:
        return dict.fromkeys(keys)
    return [step] if plan.executes(step) else []
