"""Statuses in lists: no events are read for a successful run, and once for a run that ended a while ago."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import DagsterEvent, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import DagsterEventType, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.stats import StepEventStatus
from dagster._core.storage.dagster_run import RunRecord

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.execution.runs.run_end import cancel_run, fail_run_with
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests
from bonseyes_dagster.orchestration.runs.records import Records
from bonseyes_dagster.orchestration.runs.states import States

TINY = Path(__file__).parents[3] / "flow" / "tiny"


@pytest.fixture
def states(instance: DagsterInstance) -> States:
    """The reader of the tiny project's runs."""
    pipeline = load_pipeline(TINY, "tiny-one")
    requests = ContainerRequests(Addresses())
    return States(Records(instance, pipeline), pipeline, requests, "http://gateway")


def record_of(
    instance: DagsterInstance, *, ended_s: float, status: DagsterRunStatus = DagsterRunStatus.FAILURE
) -> RunRecord:
    """Return the record of a run that failed so many seconds ago, one of whose steps has begun."""
    run = DagsterRun(job_name="tiny_one", status=status)
    instance.run_storage.add_run(run)
    event = DagsterEvent(DagsterEventType.STEP_START.value, "tiny_one", step_key="load_train")
    instance.report_dagster_event(event, run.run_id)
    [record] = instance.get_run_records(limit=1)
    return record._replace(end_time=time.time() - ended_s)


def test_run_that_ended_a_while_ago_is_read_once(instance: DagsterInstance, states: States) -> None:
    """It is read again when its row changes."""
    record = record_of(instance, ended_s=100)
    before = states.brief(record)
    assert {step.phase for step in before.steps or ()} == {"interrupted", "cancelled"}
    instance.event_log_storage.delete_events(record.dagster_run.run_id)
    assert states.brief(record) is before
    changed = record._replace(update_timestamp=record.update_timestamp + timedelta(seconds=1))
    assert states.brief(changed) != before


def test_run_ended_by_another_process_has_its_reason(instance: DagsterInstance, states: States) -> None:
    """The reason is not that of a step which ended with the run."""
    run = DagsterRun(job_name="tiny_one", status=DagsterRunStatus.STARTED)
    instance.run_storage.add_run(run)
    instance.report_dagster_event(
        DagsterEvent(DagsterEventType.STEP_START.value, "tiny_one", step_key="load_train"), run.run_id
    )
    fail_run_with(instance, run, "The machine was sold.", RunFailureReason.UNEXPECTED_TERMINATION)
    [record] = instance.get_run_records(limit=1)
    status = states.brief(record)
    assert (status.phase, status.reason) == ("failed", "The machine was sold.")
    assert "running" not in {step.phase for step in status.steps or ()}
    assert [each.status for each in instance.get_run_step_stats(run.run_id)] == [StepEventStatus.FAILURE]


def test_run_that_just_ended_is_read_again(instance: DagsterInstance, states: States) -> None:
    """Its last events may come late."""
    record = record_of(instance, ended_s=1)
    before = states.brief(record)
    instance.event_log_storage.delete_events(record.dagster_run.run_id)
    assert states.brief(record) != before


def test_events_of_a_successful_run_are_not_read(instance: DagsterInstance, states: States) -> None:
    """All its steps have succeeded. Here the events would say otherwise, so reading them would show."""
    status = states.brief(record_of(instance, ended_s=1, status=DagsterRunStatus.SUCCESS))
    assert {step.phase for step in status.steps or ()} == {"completed"}
    assert status.progress.done == status.progress.total == len(status.steps or ())


def test_events_of_a_partial_run_are_read(instance: DagsterInstance, states: States) -> None:
    """Its inherited steps belong to another run."""
    record = record_of(instance, ended_s=1, status=DagsterRunStatus.SUCCESS)
    part = record.dagster_run._replace(step_keys_to_execute=["load_train"])
    status = states.brief(record._replace(dagster_run=part))
    assert "completed" not in {step.phase for step in status.steps or ()}


def test_step_that_ends_by_a_cancellation_is_cancelled(instance: DagsterInstance, states: States) -> None:
    """A step that failed by itself before the cancellation is failed."""
    run = DagsterRun(job_name="tiny_one", status=DagsterRunStatus.STARTED)
    instance.run_storage.add_run(run)
    for key in ("load_train", "load_test"):
        instance.report_dagster_event(
            DagsterEvent(DagsterEventType.STEP_START.value, "tiny_one", step_key=key), run.run_id
        )
    failure = DagsterEvent(
        DagsterEventType.STEP_FAILURE.value,
        "tiny_one",
        step_key="load_train",
        event_specific_data=StepFailureData(error=None, user_failure_data=None),  # type: ignore[no-untyped-call]
    )
    instance.report_dagster_event(failure, run.run_id)
    instance.report_run_canceling(run)
    cancel_run(instance, run)
    [record] = instance.get_run_records(limit=1)
    phases = {step.name: step.phase for step in states.brief(record).steps or ()}
    assert (phases.pop("load_train"), set(phases.values())) == ("failed", {"cancelled"})
