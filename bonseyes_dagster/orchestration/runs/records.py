"""Finds the runs of one pipeline in Dagster's run storage, by name or by age. Runs are stored nowhere else."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.execution.runs.run_names import named_record, own_name, pipeline_name, run_name
from bonseyes_dagster.model import Phase
from bonseyes_dagster.orchestration.pipeline import Pipeline
from bonseyes_dagster.orchestration.runs.dagster_internals import FINISHED_STATUSES, RunRecord
from bonseyes_dagster.tags import DELETED_TAG, PIPELINE_TAG, RUN_TAG

__all__ = ["Instance", "Records", "is_marked", "open_instance", "phase_of"]


_PAGE = 500
_MOST_OWNERS = 100_000
_ID_SUFFIX = re.compile(r"-([0-9a-f]{8})$")
_PHASES: dict[DagsterRunStatus, Phase] = {
    DagsterRunStatus.STARTED: "running",
    DagsterRunStatus.CANCELING: "running",
    DagsterRunStatus.SUCCESS: "completed",
    DagsterRunStatus.FAILURE: "failed",
    DagsterRunStatus.CANCELED: "cancelled",
}


def phase_of(run: DagsterRun) -> Phase:
    """Return the phase of a run as the HTTP API names it."""
    return _PHASES.get(run.status, "queued")


def is_marked(run: DagsterRun, tag: str) -> bool:
    """Tell whether a run itself was marked with a tag. A re-execution copies its parent's tags, marks included.

    So the value of the tag is the run's id. Earlier versions wrote "true". It does not count for a run with a parent.
    """
    value = run.tags.get(tag)
    return value == run.run_id or (value == "true" and run.parent_run_id is None)


# `pipeline/` passes an instance on without importing Dagster.
Instance = DagsterInstance


def open_instance() -> Instance:
    """Open the Dagster instance of DAGSTER_HOME for a server process."""
    instance = DagsterInstance.get()
    # This pools the connections to a database server. SQLite's connections stay: they suit many readers.
    instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
    return instance


class Records:
    """The runs of one pipeline in a Dagster instance."""

    def __init__(self, instance: DagsterInstance, pipeline: Pipeline) -> None:
        self.instance = instance
        self._pipeline = pipeline
        # Runs whose tag is known to be their own name. This does not change any more.
        self._owners: set[str] = set()

    def check(self) -> None:
        """Raise the error that prevents reading runs, if there is one."""
        self.instance.get_run_ids(limit=1)

    def find(self, name: str) -> RunRecord:
        """Return the run called `name`; raise NotFoundError if there is none or it is being deleted."""
        record = self.search(name)
        if record is None or is_marked(record.dagster_run, DELETED_TAG):
            raise NotFoundError(f"The pipeline {self._pipeline.name} has no run {name!r}.")
        return record

    def search(self, name: str) -> RunRecord | None:
        """Return the run called `name`, even if it is being deleted."""
        found = named_record(self.instance, name)
        is_ours = found is not None and found.dagster_run.job_name == self._pipeline.job_name
        return found if is_ours else self._unnamed(name)

    def owner(self, name: str) -> str | None:
        """Return the pipeline, of all in the project, that has a run called `name`."""
        found = named_record(self.instance, name)
        return pipeline_name(found.dagster_run) if found else None

    def by_id(self, run_id: str) -> RunRecord | None:
        """Return the run with an id."""
        record = self.instance.get_run_record_by_id(run_id)
        return self._named(record) if record is not None else None

    def by_tag(self, tag: str, value: str) -> DagsterRun | None:
        """Return the oldest of this pipeline's runs that have a tag."""
        found = self._first(job_name=self._pipeline.job_name, tags={tag: value})
        return found.dagster_run if found else None

    def page(self, *, limit: int | None, after: str | None) -> Iterator[RunRecord]:
        """Yield runs, oldest first, from the one after the run `after`; at most `limit`."""
        cursor = self.find(after).dagster_run.run_id if after is not None else None
        left = limit if limit is not None else float("inf")
        filters = RunsFilter(job_name=self._pipeline.job_name)
        while left > 0:
            size = int(min(left, _PAGE))
            records = self.instance.get_run_records(filters, limit=size, cursor=cursor, ascending=True)
            for record in records:
                if not is_marked(record.dagster_run, DELETED_TAG):
                    left -= 1
                    yield self._named(record)
            if len(records) < size:
                return
            cursor = records[-1].dagster_run.run_id

    def deleted(self) -> list[DagsterRun]:
        """Return the runs whose deletion has begun."""
        values = [value for _, found in self.instance.get_run_tags([DELETED_TAG]) for value in found]
        if not values:
            return []
        filters = RunsFilter(job_name=self._pipeline.job_name, tags={DELETED_TAG: values})
        return [run for run in self.instance.get_runs(filters) if is_marked(run, DELETED_TAG)]

    def marked(self, run_id: str) -> RunRecord | None:
        """Return the record of a run that is marked for deletion; None if it is gone or a new run has its id."""
        record = self.by_id(run_id)
        return record if record is not None and is_marked(record.dagster_run, DELETED_TAG) else None

    def is_finished(self, run_id: str) -> bool:
        """Tell whether a run is final or gone."""
        return run_id in self.finished_among([run_id])

    def finished_among(self, run_ids: Collection[str]) -> set[str]:
        """Return those of `run_ids` whose runs are final or gone."""
        unfinished = [status for status in DagsterRunStatus if status not in FINISHED_STATUSES]
        return {*run_ids} - {*self.instance.get_run_ids(RunsFilter(run_ids=list(run_ids), statuses=unfinished))}

    def counts(self) -> dict[str, int]:
        """Return the number of runs in each phase."""
        counts: dict[str, int] = {}
        for phase in ("queued", "running", "completed", "failed", "cancelled"):
            statuses = [status for status in DagsterRunStatus if _PHASES.get(status, "queued") == phase]
            filters = RunsFilter(job_name=self._pipeline.job_name, statuses=statuses)
            counts[phase] = self.instance.get_runs_count(filters)
        return counts

    def _first(self, **filters: Any) -> RunRecord | None:
        records = self.instance.get_run_records(RunsFilter(**filters), limit=1, ascending=True)
        return self._named(records[0]) if records else None

    def _named(self, record: RunRecord) -> RunRecord:
        """Return a record whose tag is the run's own name: in the storage, two runs may have one tag.

        Our executor renames such a run of `dagster job execute` before its first step. Dagster's executors do not.
        """
        run = record.dagster_run
        if run.run_id in self._owners:
            return record
        name = own_name(self.instance, run)
        if name != run_name(run):
            return record._replace(dagster_run=run.with_tags({**run.tags, RUN_TAG: name}))
        if len(self._owners) < _MOST_OWNERS:
            self._owners.add(run.run_id)
        return record

    def _unnamed(self, name: str) -> RunRecord | None:
        """Find a run of `dagster job execute` that has no stored name: its name ends with the start of its id."""
        suffix = _ID_SUFFIX.search(name)
        if suffix is None:
            return None
        filters = RunsFilter(job_name=self._pipeline.job_name, tags={PIPELINE_TAG: self._pipeline.name})
        for run_id in self.instance.get_run_ids(filters):
            if run_id.startswith(suffix[1]):
                found = self._first(run_ids=[run_id])
                if found is not None and run_name(found.dagster_run) == name:
                    return found
        return None
