"""Check Dagster's events for runs, successes and step starts that occur twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from dagster import DagsterEventType, DagsterInstance, RunsFilter

__all__ = ["doubled"]


def doubled(instance: DagsterInstance, most_starts: Mapping[str, int], may_fail: Collection[str]) -> Iterator[str]:
    """Yield faults: a run of a name, its success or the start of a step is missing or occurs twice.

    Args:
        instance: Where the runs are.
        most_starts: How often each run, by its name, may begin a step.
        may_fail: Runs that need not have succeeded.
    """
    for name, most in most_starts.items():
        runs = instance.get_runs(RunsFilter(tags={"bonseyes/run": name}))
        if len(runs) != 1:
            yield f"there are {len(runs)} runs {name}"
        for run in runs:
            starts, successes = _counts(instance, run.run_id)
            for step, count in starts.items():
                if count > most:
                    yield f"{name} has {count} STEP_START of {step}; {most} at most"
            if successes != 1 and not (name in may_fail and successes == 0):
                yield f"{name} has {successes} RUN_SUCCESS"


def _counts(instance: DagsterInstance, run_id: str) -> tuple[Counter[str], int]:
    """Return how often each step has started, and how often the run has succeeded."""
    kinds = {DagsterEventType.STEP_START, DagsterEventType.RUN_SUCCESS}
    events = [record.dagster_event for record in instance.all_logs(run_id, of_type=kinds)]
    starts = Counter(event.step_key for event in events if event and event.step_key)
    return starts, sum(1 for event in events if event and not event.step_key)
