"""Statuses in lists: that of a run which ended a while ago is made once, all others each time."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import DagsterEvent, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import DagsterEventType
from dagster._core.storage.dagster_run import RunRecord

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.pipeline.asking import Asker
from bonseyes_dagster.pipeline.records import Records
from bonseyes_dagster.pipeline.states import States

TINY = Path(__file__).parents[2] / "flow" / "tiny"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with files."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def states(instance: DagsterInstance) -> States:
    """The reader of the tiny project's runs."""
    pipeline = load_pipeline(TINY, "tiny-one")
    asker = Asker(Addresses())
    return States(Records(instance, pipeline), pipeline, asker, "http://gateway")


def record_of(instance: DagsterInstance, *, ended_s: float) -> RunRecord:
    """Return the record of a run that succeeded so many seconds ago, one of whose steps has begun."""
    run = DagsterRun(job_name="tiny_one", status=DagsterRunStatus.SUCCESS)
    instance.run_storage.add_run(run)
    event = DagsterEvent(DagsterEventType.STEP_START.value, "tiny_one", step_key="load_train")
    instance.report_dagster_event(event, run.run_id)
    [record] = instance.get_run_records(limit=1)
    return record._replace(end_time=time.time() - ended_s)


def test_a_settled_run_is_read_once(instance: DagsterInstance, states: States) -> None:
    """Until its record changes."""
    record = record_of(instance, ended_s=100)
    before = states.brief(record)
    assert {step.phase for step in before.steps or ()} == {"interrupted", "cancelled"}
    instance.event_log_storage.delete_events(record.dagster_run.run_id)
    assert states.brief(record) is before
    changed = record._replace(update_timestamp=record.update_timestamp + timedelta(seconds=1))
    assert states.brief(changed) != before


def test_a_run_that_just_ended_is_read_again(instance: DagsterInstance, states: States) -> None:
    """Its last events may come late."""
    record = record_of(instance, ended_s=1)
    before = states.brief(record)
    instance.event_log_storage.delete_events(record.dagster_run.run_id)
    assert states.brief(record) != before
