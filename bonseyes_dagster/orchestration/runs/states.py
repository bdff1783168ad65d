"""Makes the status of a run and its steps, from Dagster's storage and from the containers of the steps in progress."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus, GraphDefinition

from bonseyes_dagster.execution.launching.coordinator import queue_place
from bonseyes_dagster.execution.runs.run_end import is_closed_with_its_run
from bonseyes_dagster.execution.runs.run_names import run_name
from bonseyes_dagster.model import NOT_SELECTED, Progress, Status, Step
from bonseyes_dagster.orchestration.names import METRIC_PREFIX, artifact_name, idempotency_key
from bonseyes_dagster.orchestration.pipeline import Pipeline, PipelineStep
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests
from bonseyes_dagster.orchestration.runs.dagster_internals import (
    JobFailureData,
    RunFailureReason,
    RunRecord,
    RunStepKeyStatsSnapshot,
    StepEventStatus,
)
from bonseyes_dagster.orchestration.runs.lineage import Lineage, Origin, executes_all, mapping_key, step_of
from bonseyes_dagster.orchestration.runs.records import Records, phase_of
from bonseyes_dagster.orchestration.steps.tool_op import ToolOp

__all__ = ["RunState", "States", "StepState"]

# The status leaves out a container that does not answer in this time.
REQUEST_TIMEOUT_S = 2.0
_CANCELLED = (DagsterRunStatus.CANCELED, DagsterRunStatus.CANCELING)
# For so long after its end, a run may still get events.
_SETTLED_S = 60.0
_MOST_SETTLED = 20_000


@dataclass(frozen=True)
class StepState:
    """One step of a run, the run that executed it, and its statistics.

    A re-execution inherits steps; then `run` is an earlier run. No run executes a step that is not selected; then `run`
    is the run that leaves it out.
    """

    step: PipelineStep
    name: str
    run: DagsterRun
    stats: RunStepKeyStatsSnapshot | None = None
    is_inherited: bool = False
    is_selected: bool = True
    is_cancelled: bool = False
    """Whether it failed after its run was asked to cancel: Dagster has no status "cancelled" for a step."""

    @property
    def artifact(self) -> str:
        """Return the name of its artifact; "" for a step that is not selected."""
        return artifact_name(run_name(self.run), self.name) if self.is_selected else ""

    @property
    def idempotency_key(self) -> str:
        """Return the idempotency key with which its artifact was created."""
        return idempotency_key(self.run, self.name)

    @property
    def phase(self) -> str:
        """Return its phase, from Dagster's data alone; a step of a final run is never in progress."""
        if not self.is_selected:
            return NOT_SELECTED
        status = self.stats.status if self.stats else None
        if status is StepEventStatus.SUCCESS:
            return "completed"
        if status is StepEventStatus.FAILURE:
            return "cancelled" if self.is_cancelled else "failed"
        if self.run.is_finished:
            return "cancelled" if phase_of(self.run) == "cancelled" or status is None else "interrupted"
        return "queued" if status is None else "running"

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the last value of each metric of a benchmark; an empty dict for other steps."""
        return {
            key.removeprefix(METRIC_PREFIX): value for key, value in self.made.items() if key.startswith(METRIC_PREFIX)
        }

    @property
    def duration_s(self) -> float | None:
        """Return how long it took; None before it has ended."""
        if self.stats is None or self.stats.start_time is None or self.stats.end_time is None:
            return None
        return self.stats.end_time - self.stats.start_time

    @cached_property
    def made(self) -> dict[str, Any]:
        """Return the metadata of the artifact that it made; empty before it has made one."""
        if self.stats is None or not self.stats.materialization_events:
            return {}
        event = self.stats.materialization_events[-1].dagster_event
        if event is None:
            return {}
        metadata = event.step_materialization_data.materialization.metadata
        return {key: value.value for key, value in metadata.items()}


@dataclass(frozen=True)
class RunState:
    """A run with its steps, from Dagster's storage."""

    record: RunRecord
    steps: tuple[StepState, ...]

    @property
    def run(self) -> DagsterRun:
        """Return Dagster's run."""
        return self.record.dagster_run

    @property
    def name(self) -> str:
        """Return the run's name."""
        return run_name(self.run)


class States:
    """Reads the state of runs and makes status objects of it."""

    def __init__(self, records: Records, pipeline: Pipeline, requests: ContainerRequests, gateway_url: str) -> None:
        self._records = records
        self._pipeline = pipeline
        self.requests = requests
        self._gateway_url = gateway_url
        self._settled: dict[tuple[str, datetime], Status] = {}
        self._skips_nothing = _has_only_tools(pipeline.graph)
        self._lineage = Lineage(records)

    def read(self, record: RunRecord) -> RunState:
        """Return a run with its steps."""
        return RunState(record, tuple(self._steps(record)))

    def brief(self, record: RunRecord) -> Status:
        """Return the status of a run from Dagster's data alone, for a list of runs.

        Each run has a separate database of events, which is slow to open. This does not open it for a run that has
        succeeded. For other runs that ended a while ago, it opens the database once.
        """
        key = (record.dagster_run.run_id, record.update_timestamp)
        status = self._settled.get(key)
        if status is None:
            status = self.status(self._succeeded(record) or self.read(record), is_live=False)
            if _is_settled(record) and len(self._settled) < _MOST_SETTLED:
                self._settled[key] = status
        return status

    def _succeeded(self, record: RunRecord) -> RunState | None:
        """Return the state of a successful run without the metadata of its artifacts; None if a step may be missing."""
        run = record.dagster_run
        if not (run.is_success and self._skips_nothing and executes_all(run)):
            return None
        done = {
            step.name: RunStepKeyStatsSnapshot(run.run_id, step.name, StepEventStatus.SUCCESS)
            for step in self._pipeline.steps
        }
        steps = (StepState(step, step.name, run, done[step.name]) for step in self._pipeline.steps)
        return RunState(record, tuple(steps))

    def dagster_url(self, run_id: str) -> str:
        """Return the URL of a run in Dagster's UI."""
        return f"{self._gateway_url}/dagster/runs/{run_id}"

    def status(self, state: RunState, *, is_live: bool) -> Status:
        """Return the status of a run; with `is_live`, ask the containers about the steps in progress."""
        steps = self._live(state) if is_live else [_step(each) for each in state.steps]
        done = sum(each.phase == "completed" for each in state.steps)
        total = sum(each.is_selected for each in state.steps)
        active = ", ".join(step.name for step in steps if step.phase == "running")
        record = state.record
        is_queued = is_live and state.run.status is DagsterRunStatus.QUEUED
        place = queue_place(self._records.instance, state.run) if is_queued else None
        return Status(
            name=state.name,
            phase=phase_of(state.run),
            reason=place.reason if place else self._reason(state),
            position=place.position if place else None,
            progress=Progress(done, total, "steps", active or None),
            created=_time(record.create_timestamp),
            started=_time(record.start_time),
            finished=_time(record.end_time),
            steps=tuple(steps),
            run_id=state.run.run_id,
            dagster_url=self.dagster_url(state.run.run_id),
        )

    def _steps(self, record: RunRecord) -> Iterator[StepState]:
        run = record.dagster_run
        origins = self._lineage.origins(record, [step.name for step in self._pipeline.steps])
        keys: dict[str, list[str]] = defaultdict(list)
        for key in origins:
            keys[step_of(key)].append(key)
        for step in self._pipeline.steps:
            for key in keys[step.name]:
                origin = origins[key]
                state = _state(step, key, origin, is_inherited=origin.run.run_id != run.run_id)
                yield replace(state, is_cancelled=self._is_cancelled(origin))
            if not keys[step.name]:
                yield StepState(step, step.name, run, is_selected=False)

    def _is_cancelled(self, origin: Origin) -> bool:
        """Tell whether a step failed after its run was asked to cancel."""
        stats = origin.stats
        if origin.run.status not in _CANCELLED or stats is None or stats.status is not StepEventStatus.FAILURE:
            return False
        asked = self._records.instance.get_records_for_run(
            origin.run.run_id, of_type=DagsterEventType.RUN_CANCELING, limit=1
        ).records
        return bool(asked) and (stats.end_time or 0.0) >= asked[0].timestamp

    def _live(self, state: RunState) -> list[Step]:
        running = {each.name: each for each in state.steps if each.phase == "running"}
        answers = self.requests.call_all({name: self._status_call(each) for name, each in running.items()})
        return [_with_answer(_step(each), answers.get(each.name)) for each in state.steps]

    def _status_call(self, step: StepState) -> Any:
        artifact = self.requests.container(step.step.container).artifact(step.artifact)
        path = f"/artifacts/{artifact.name}/status"
        transport = artifact.container.transport
        return lambda: transport.get_json(path, Status.from_json, read_timeout_s=REQUEST_TIMEOUT_S, repeat=False)

    def _reason(self, state: RunState) -> str | None:
        if phase_of(state.run) != "failed":
            return None
        kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
        records = self._records.instance.get_records_for_run(state.run.run_id, of_type=kinds, limit=100).records
        found = [record.event_log_entry.dagster_event for record in records]
        # A step that was closed with its run has no reason of its own.
        events = [event for event in found if event and not is_closed_with_its_run(event)]
        if any(_ended_by_others(event) for event in events):
            events = [event for event in events if not event.step_key]
        reasons = [f"{event.step_key}: {_sentence(event)}" for event in events if event.step_key]
        reasons = reasons or [event.message or "" for event in events]
        return "; ".join(dict.fromkeys(filter(None, reasons))) or "The run failed."


def _ended_by_others(event: DagsterEvent) -> bool:
    """Tell whether another process than the run's own reported the failure of the run; then it has the reason."""
    if event.event_type is not DagsterEventType.RUN_FAILURE:
        return False
    data = event.event_specific_data
    own_reasons = (RunFailureReason.STEP_FAILURE, RunFailureReason.RUN_EXCEPTION)
    return not isinstance(data, JobFailureData) or data.failure_reason not in own_reasons


def _has_only_tools(graph: GraphDefinition) -> bool:
    """Tell whether all ops of a graph are tool ops: a tool op is never skipped, and never mapped."""
    definitions = [node.definition for node in graph.nodes]
    return all(
        _has_only_tools(each) if isinstance(each, GraphDefinition) else isinstance(each, ToolOp) for each in definitions
    )


def _is_settled(record: RunRecord) -> bool:
    is_over = record.dagster_run.is_finished and record.end_time is not None
    return is_over and time.time() - (record.end_time or 0) > _SETTLED_S


def _state(step: PipelineStep, key: str, origin: Origin, *, is_inherited: bool) -> StepState:
    name = f"{step.name}.{mapping_key(key)}" if mapping_key(key) else step.name
    return StepState(step, name, origin.run, origin.stats, is_inherited)


def _step(state: StepState) -> Step:
    return Step(name=state.name, container=state.step.container, artifact=state.artifact, phase=state.phase)


def _with_answer(step: Step, answer: object) -> Step:
    """Add the container's status to a running step; the artifact may be final before Dagster knows it."""
    if not isinstance(answer, Status):
        return step
    return replace(step, phase=answer.phase, progress=answer.progress)


def _sentence(event: Any) -> str:
    data = event.event_specific_data
    failure = getattr(data, "user_failure_data", None)
    if failure is not None and failure.description:
        return str(failure.description)
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error is not None else (event.message or "")


def _time(moment: datetime | float | None) -> str | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
