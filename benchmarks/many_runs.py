"""Writes a Dagster instance with many finished runs, directly into its storage.

The benchmarks list these runs but do not execute them. Each run has a row and the tags of a real run. Only the oldest
runs also have events, because only they are read in detail: each step started and succeeded.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dagster import DagsterEvent, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import DagsterEventType, StepSuccessData
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._serdes import serialize_value

from bonseyes_dagster.execution.runs.run_names import run_id_of
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from bonseyes_dagster.orchestration.names import job_name
from bonseyes_dagster.tags import PIPELINE_TAG, RUN_TAG

__all__ = ["fill"]

_SUCCESS = StepSuccessData(duration_ms=1000.0)
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def fill(home: Path, pipeline: str, steps: Sequence[str], count: int, *, detailed: int) -> None:
    """Make the instance in `home` with `count` runs. The oldest `detailed` runs have events."""
    write_instance(home)
    bring_up_to_date(home)
    runs = [_run(pipeline, steps, number) for number in range(count)]
    with DagsterInstance.from_config(str(home)) as instance:
        storage: Any = instance.run_storage
        with storage.connect() as connection:
            connection.execute(RunsTable.insert(), [_record(run, number) for number, run in enumerate(runs)])
            connection.execute(RunTagsTable.insert(), [tag for run in runs for tag in _tags(run)])
        for step in steps:
            for kind, data in ((DagsterEventType.STEP_START, None), (DagsterEventType.STEP_SUCCESS, _SUCCESS)):
                event = DagsterEvent(kind.value, runs[0].job_name, step_key=step, event_specific_data=data)
                instance.report_dagster_event(event, runs[0].run_id)
    _copy_events(home / "storage/history/runs", [run.run_id for run in runs[:detailed]])


def _run(pipeline: str, steps: Sequence[str], number: int) -> DagsterRun:
    name = f"run-{number:05d}"
    return DagsterRun(
        job_name=job_name(pipeline),
        run_id=run_id_of(name),
        status=DagsterRunStatus.SUCCESS,
        run_config={"ops": {step: {"config": {"seed": number}} for step in steps}},
        tags={RUN_TAG: name, PIPELINE_TAG: pipeline},
    )


def _record(run: DagsterRun, number: int) -> dict[str, Any]:
    created = _FIRST + timedelta(minutes=number)
    return {
        "run_id": run.run_id,
        "pipeline_name": run.job_name,
        "status": run.status.value,
        "run_body": serialize_value(run),
        "create_timestamp": created.replace(tzinfo=None),
        "update_timestamp": created.replace(tzinfo=None),
        "start_time": created.timestamp() + 1,
        "end_time": created.timestamp() + 30,
    }


def _tags(run: DagsterRun) -> list[dict[str, str]]:
    return [{"run_id": run.run_id, "key": key, "value": value} for key, value in run.tags_for_storage().items()]


def _copy_events(folder: Path, run_ids: Sequence[str]) -> None:
    """Copy the events of the first run to the other runs."""
    first = run_ids[0]
    with closing(sqlite3.connect(folder / f"{first}.db")) as source:
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for run_id in run_ids[1:]:
        shutil.copyfile(folder / f"{first}.db", folder / f"{run_id}.db")
        with closing(sqlite3.connect(folder / f"{run_id}.db")) as copy, copy:
            copy.execute("PRAGMA synchronous=OFF")
            copy.execute("UPDATE event_logs SET run_id = ?, event = replace(event, ?, ?)", (run_id, first, run_id))
