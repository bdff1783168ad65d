"""Cancels and deletes runs, with their artifacts. `pipeline/runs.py` calls it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from dagster import DagsterError, DagsterRun

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.errors import BonseyesError, NotFoundError, UnavailableError
from bonseyes_dagster.execution.runs.run_end import cancel_run
from bonseyes_dagster.execution.runs.run_names import run_name
from bonseyes_dagster.orchestration.names import has_idempotency_key
from bonseyes_dagster.orchestration.runs.dagster_internals import RunRecord
from bonseyes_dagster.orchestration.runs.records import Records, is_marked, phase_of
from bonseyes_dagster.orchestration.runs.run_locks import RunLocks
from bonseyes_dagster.orchestration.runs.states import RunState, States, StepState
from bonseyes_dagster.orchestration.runs.withdrawal import closed_steps
from bonseyes_dagster.tags import DELETE_ARTIFACTS_TAG, DELETED_TAG, UPLOADS_TAG

__all__ = ["RunEnding"]

# A container that has been away for so long will not come back and continue its queue.
_PATIENCE_S = 3600.0
_log = logging.getLogger(__name__)
# A cancelled run ends within a second. A tool has ten seconds to end by itself.
END_TIMEOUT_S = 20.0


class RunEnding:
    """Cancels and deletes runs."""

    def __init__(
        self,
        records: Records,
        states: States,
        remove_uploads: Callable[[str], None],
        *,
        delete_locks: RunLocks,
        start_locks: RunLocks,
    ) -> None:
        """Take `remove_uploads`, which removes the files of an upload token.

        `start_locks` are the locks of the RunStarter: it must not start a run while this deletes one of the same id.
        """
        self._records = records
        self._states = states
        self._remove_uploads = remove_uploads
        self._instance = records.instance
        self._delete_locks = delete_locks
        self._start_locks = start_locks

    def cancel(self, run: DagsterRun) -> None:
        """Ask the run to end; mark it as cancelled if no process executes it."""
        if run.is_finished:
            return
        try:
            is_accepted = self._instance.run_coordinator.cancel_run(run.run_id)
        except (DagsterError, OSError):  # no launcher, no process or no answer
            is_accepted = False
        if not is_accepted and not self._records.is_finished(run.run_id):
            # Report this first: then the steps count as cancelled, not as failed by themselves.
            self._instance.report_run_canceling(run)
            cancel_run(self._instance, run, "Cancelled; no process was executing it.")
            self._cancel_artifacts(run)

    def delete(self, record: RunRecord, *, with_artifacts: bool) -> list[str]:
        """Mark the run as deleted, which hides it, then delete it; return the URLs of the artifacts that stay.

        If this process ends in between, `resume` finishes the deletion.
        """
        found = record.dagster_run
        with self._delete_locks.try_hold(found.run_id) as is_locked:
            run = self._instance.get_run_by_id(found.run_id) if is_locked else None
            if run is None:
                raise NotFoundError(f"Another request deletes the run {run_name(found)!r}.")
            marks = {DELETED_TAG: run.run_id} | ({DELETE_ARTIFACTS_TAG: run.run_id} if with_artifacts else {})
            self._instance.add_run_tags(run.run_id, marks)
            return self._carry_out(run, with_artifacts=with_artifacts)

    def resume(self) -> None:
        """Finish deletions that an earlier process or request began."""
        for listed in self._records.deleted():
            with self._delete_locks.try_hold(listed.run_id) as is_locked:
                record = self._records.marked(listed.run_id) if is_locked else None
                if record is not None:
                    run = record.dagster_run
                    try:
                        self._carry_out(run, with_artifacts=is_marked(run, DELETE_ARTIFACTS_TAG))
                    except UnavailableError as error:  # the next call of resume tries again
                        _log.warning("The run %s is being deleted. %s", run_name(run), error.message)

    def _carry_out(self, run: DagsterRun, *, with_artifacts: bool) -> list[str]:
        self.cancel(run)
        self._wait(run)
        # Somebody may have deleted the run on Dagster's page.
        record = self._records.marked(run.run_id)
        if record is None:
            return []
        state = self._states.read(record)
        kept: list[str] = []
        if with_artifacts:
            self._delete_artifacts(state)
        else:
            kept = self._keep_artifacts(state)
        with self._start_locks.hold(run.run_id):
            if self._records.marked(run.run_id) is None:
                return kept
            self._instance.delete_run(run.run_id)
        token = run.tags.get(UPLOADS_TAG, "")
        # Re-executions of the run read the same files.
        if token and self._records.by_tag(UPLOADS_TAG, token) is None:
            self._remove_uploads(token)
        return kept

    def _wait(self, run: DagsterRun) -> None:
        """Wait for the end of the run's process: it must not write events after the run's row is deleted."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while not self._records.is_finished(run.run_id) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _cancel_artifacts(self, run: DagsterRun) -> None:
        record = self._records.by_id(run.run_id)
        if record is not None:
            state = self._states.read(record)
            self._call_all(state.steps, lambda artifact: artifact.cancel)

    def _keep_artifacts(self, state: RunState) -> list[str]:
        """Cancel the artifacts that the run left in progress, and return the URLs of the artifacts that stay.

        Raises UnavailableError while a container with work of the run is away: only the run's row tells of that work.
        """
        begun = [each for each in state.steps if each.stats is not None]
        answers = self._call_all(self._unfinished_steps(state.run, begun), lambda artifact: artifact.cancel)
        ended = state.record.end_time or state.record.create_timestamp.timestamp()
        if time.time() - ended < _PATIENCE_S:
            _raise_for_unreachable("cancelled", answers)
        answers = self._call_all(begun, lambda artifact: artifact.status)
        return [url for url, answer in answers.items() if not isinstance(answer, NotFoundError)]

    def _unfinished_steps(self, run: DagsterRun, begun: Iterable[StepState]) -> list[StepState]:
        """Return the steps whose artifacts may still be in progress.

        A step that failed by itself has seen the end of its artifact. A step that was cancelled, or closed with its
        run, may not have seen it.
        """
        seen = {"completed", "failed"} if phase_of(run) == "failed" else {"completed"}
        closed = closed_steps(self._instance, run.run_id)
        return [each for each in begun if each.phase not in seen or (each.stats and each.stats.step_key in closed)]

    def _delete_artifacts(self, state: RunState) -> None:
        _raise_for_unreachable("deleted", self._call_all(state.steps, lambda artifact: artifact.delete))

    def _call_all(
        self, steps: Iterable[StepState], call: Callable[[Artifact], Callable[[], object]]
    ) -> dict[str, object]:
        """Make a call for each artifact that the run made itself, not for those that it inherited from its parent."""
        calls: dict[str, Callable[[], object]] = {}
        for each in steps:
            if each.is_selected and not each.is_inherited:
                artifact = self._states.requests.container(each.step.container).artifact(each.artifact)
                calls[artifact.url] = partial(_call_if_own, artifact, each.idempotency_key, call(artifact))
        return self._states.requests.call_all(calls)


def _call_if_own(artifact: Artifact, key: str, call: Callable[[], object]) -> object:
    """Make the call, unless the artifact was made by hand or by a deleted run of the same name."""
    if not has_idempotency_key(artifact.info(), key):
        raise NotFoundError(f"{artifact.url} was not made by this run.")
    return call()


def _raise_for_unreachable(done: str, answers: Mapping[str, object]) -> None:
    failed = {url: answer for url, answer in answers.items() if isinstance(answer, BonseyesError)}
    left = {url: error.message for url, error in failed.items() if not isinstance(error, NotFoundError)}
    if left:
        sentences = "; ".join(f"{url}: {sentence}" for url, sentence in left.items())
        raise UnavailableError(
            f"Some artifacts could not be {done} yet; it will be tried again: {sentences}", detail={"left": left}
        )
