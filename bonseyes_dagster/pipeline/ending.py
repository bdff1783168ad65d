"""How a run ends before its time, and how it goes: terminated, its artifacts cancelled, its record removed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial

from dagster import DagsterError, DagsterRun, RunsFilter
from dagster._core.storage.dagster_run import RunRecord

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.errors import BonseyesError, NotFoundError, UnavailableError
from bonseyes_dagster.orchestration.names import run_name
from bonseyes_dagster.pipeline.records import DELETED_TAG, UPLOADS_TAG, Records
from bonseyes_dagster.pipeline.states import RunState, States
from bonseyes_dagster.pipeline.uploads import Uploads

__all__ = ["Ending"]

_ARTIFACTS_TAG = "bonseyes/delete-artifacts"
# A cancelled run ends within a second; a tool gets ten to end by itself.
END_TIMEOUT_S = 20.0


class Ending:
    """Cancels and deletes runs."""

    def __init__(self, records: Records, states: States, uploads: Uploads) -> None:
        self._records = records
        self._states = states
        self._uploads = uploads
        self._instance = records.instance
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    def cancel(self, run: DagsterRun) -> None:
        """Ask the run to end. One that nobody executes any more is marked as cancelled here."""
        if run.is_finished:
            return
        try:
            is_told = self._instance.run_coordinator.cancel_run(run.run_id)
        except (DagsterError, OSError):  # no launcher, no process, no answer
            is_told = False
        if not is_told and not self._records.is_finished(run.run_id):
            self._instance.report_run_canceled(run, message="Cancelled; no process was executing it.")
            self._cancel_artifacts(run)

    def delete(self, record: RunRecord, *, with_artifacts: bool) -> None:
        """Hide the run, which makes the deletion certain even if this process ends here, then carry it out."""
        found = record.dagster_run
        with self._alone(found.run_id) as is_alone:
            run = self._instance.get_run_by_id(found.run_id) if is_alone else None
            if run is None:
                raise NotFoundError(f"Another request deletes the run {run_name(found)!r}.")
            marks = {DELETED_TAG: "true"} | ({_ARTIFACTS_TAG: "true"} if with_artifacts else {})
            self._instance.add_run_tags(run.run_id, marks)
            self._carry_out(run, with_artifacts=with_artifacts)

    def resume(self) -> None:
        """Carry out the deletions that an earlier process began."""
        for listed in self._records.deleted():
            with self._alone(listed.run_id) as is_alone:
                record = self._marked(listed.run_id) if is_alone else None
                if record is not None:
                    run = record.dagster_run
                    with contextlib.suppress(UnavailableError):  # to be resumed again
                        self._carry_out(run, with_artifacts=_ARTIFACTS_TAG in run.tags)

    @contextlib.contextmanager
    def _alone(self, run_id: str) -> Iterator[bool]:
        """Tell whether no other thread is deleting this run; a pipeline has one process."""
        with self._lock:
            is_alone = run_id not in self._under_way
            self._under_way.add(run_id)
        try:
            yield is_alone
        finally:
            if is_alone:
                with self._lock:
                    self._under_way.remove(run_id)

    def _marked(self, run_id: str) -> RunRecord | None:
        """Return the record of a run that is to be deleted; a run of its name that was made since is not."""
        filters = RunsFilter(run_ids=[run_id], tags={DELETED_TAG: "true"})
        return next(iter(self._instance.get_run_records(filters, limit=1)), None)

    def _carry_out(self, run: DagsterRun, *, with_artifacts: bool) -> None:
        self.cancel(run)
        self._wait(run)
        # Dagster's own page deletes runs, too.
        record = self._marked(run.run_id)
        if record is None:
            return
        state = self._states.read(record)
        if with_artifacts:
            self._delete_artifacts(state)
        elif not run.is_finished:
            self._cancel_artifacts(run, state)
        if self._marked(run.run_id) is None:
            return
        self._instance.delete_run(run.run_id)
        token = run.tags.get(UPLOADS_TAG, "")
        # Re-executions read the same files.
        if token and self._records.by_tag(UPLOADS_TAG, token) is None:
            self._uploads.remove(token)

    def _wait(self, run: DagsterRun) -> None:
        """Wait for the run's process: what it wrote after the record is gone would be in nobody's log."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while not self._records.is_finished(run.run_id) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _cancel_artifacts(self, run: DagsterRun, state: RunState | None = None) -> None:
        record = self._instance.get_run_record_by_id(run.run_id)
        if state is None and record is not None:
            state = self._states.read(record)
        if state is not None:
            self._states.asker.ask({each.url: each.cancel for each in self._artifacts(state)})

    def _delete_artifacts(self, state: RunState) -> None:
        answers = self._states.asker.ask({each.url: partial(each.delete) for each in self._artifacts(state)})
        failed = {url: answer for url, answer in answers.items() if isinstance(answer, BonseyesError)}
        failed = {url: error for url, error in failed.items() if not isinstance(error, NotFoundError)}
        if failed:
            sentences = "; ".join(f"{url}: {error.message}" for url, error in failed.items())
            raise UnavailableError(f"Some artifacts could not be deleted yet; it will be tried again: {sentences}")

    def _artifacts(self, state: RunState) -> list[Artifact]:
        """Return the artifacts that this run made itself; those that it took over are its parent's."""
        own = [each for each in state.steps if not each.is_inherited]
        return [self._states.asker.container(each.step.container).artifact(each.artifact) for each in own]
