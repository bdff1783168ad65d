"""Cancels the artifacts that an ended run left in progress, so that no tool works for it any more.

The run server calls it, and in containers the run watch.
"""

import re
import time
from collections.abc import Iterator

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

from bonseyes_dagster.client import Addresses, Artifact, Container
from bonseyes_dagster.errors import BonseyesError, NotFoundError
from bonseyes_dagster.execution.runs import run_names
from bonseyes_dagster.execution.runs.run_end import close_steps, is_closed_with_its_run, may_have_left_work
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.orchestration.runs.dagster_internals import RunRecord, StepEventStatus
from bonseyes_dagster.tags import CONTAINER_TAG

__all__ = ["closed_steps", "withdraw"]

# A container that has been away for so long will not come back and continue its queue.
_PATIENCE_S = 3600.0
# For so long after a run's end, a container may still be handling a request of its process.
_ARRIVAL_S = 60.0
_MAPPED = re.compile(r"(.+)\[(.+)\]")


def withdraw(instance: DagsterInstance, run_id: str) -> bool:
    """Cancel the artifacts that an ended run left in progress; return False if the caller must try again."""
    record = instance.get_run_record_by_id(run_id)
    if record is None or not may_have_left_work(record.dagster_run):
        return True
    ended_s = time.time() - (record.end_time or 0.0)
    unfinished = list(_unfinished_artifacts(instance, record.dagster_run))
    if _is_same_ended_run(instance, record):
        close_steps(instance, record.dagster_run, "The run ended, and the step with it.")
    may_arrive = ended_s < _ARRIVAL_S
    answers = [
        _is_same_ended_run(instance, record) and _cancel(artifact, key, may_arrive=may_arrive)
        for artifact, key in unfinished
    ]
    return _is_same_ended_run(instance, record) and (all(answers) or ended_s > _PATIENCE_S)


def _is_same_ended_run(instance: DagsterInstance, record: RunRecord) -> bool:
    """Tell whether the storage still has this ended run: after a deletion, a new run may have its id and name."""
    now = instance.get_run_record_by_id(record.dagster_run.run_id)
    if now is None or now.create_timestamp != record.create_timestamp:
        return False
    return may_have_left_work(now.dagster_run)


def closed_steps(instance: DagsterInstance, run_id: str) -> set[str]:
    """Return the keys of the steps that were closed with their run; Dagster shows such steps as failed."""
    failures = instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    events = [entry.dagster_event for entry in failures if entry.dagster_event]
    return {event.step_key for event in events if event.step_key and is_closed_with_its_run(event)}


def _unfinished_artifacts(instance: DagsterInstance, run: DagsterRun) -> Iterator[tuple[Artifact, str]]:
    """Yield the artifacts, with their idempotency keys, of steps that began and may not have seen the artifact's end.

    A step that failed by itself has seen the end. A cancelled step has not, if its container was away.
    """
    unfinished = {StepEventStatus.IN_PROGRESS}
    if run.status == DagsterRunStatus.CANCELED:
        unfinished.add(StepEventStatus.FAILURE)
    closed = closed_steps(instance, run.run_id)
    containers = _containers(instance, run)
    addresses = Addresses.from_settings()
    for stats in instance.get_run_step_stats(run.run_id):
        mapped = _MAPPED.fullmatch(stats.step_key)
        key, step = (f"{mapped[1]}[?]", f"{mapped[1]}.{mapped[2]}") if mapped else (stats.step_key,) * 2
        container = containers.get(key)
        if (stats.status in unfinished or stats.step_key in closed) and container is not None:
            client = Container(addresses.base_url(container), name=container, kind="artifacts", retry_s=0)
            artifact = client.artifact(names.artifact_name(run_names.own_name(instance, run), step))
            yield artifact, names.idempotency_key(run, step)


def _containers(instance: DagsterInstance, run: DagsterRun) -> dict[str, str]:
    """Return the container of each tool step, from the plan of the run."""
    if run.execution_plan_snapshot_id is None:
        return {}
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    containers = {step.key: (step.tags or {}).get(CONTAINER_TAG) for step in plan.steps}
    return {key: container for key, container in containers.items() if container}


def _cancel(artifact: Artifact, key: str, *, may_arrive: bool) -> bool:
    """Cancel an artifact; return False if the caller must try again.

    An artifact that is not there may still arrive while `may_arrive`. An artifact of the same name with another
    idempotency key is left alone, and counts as not there.
    """
    try:
        if not names.has_idempotency_key(artifact.info(), key):
            return not may_arrive
        artifact.cancel()
    except NotFoundError:
        return not may_arrive
    except BonseyesError:
        return False
    return True
