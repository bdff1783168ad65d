"""The run coordinator. Every launch passes it: from Dagster's UI, its CLI, schedules, sensors and `POST /runs`.

It gives each run a name. It launches the run at once while fewer runs are live than the limit. Otherwise the run waits
in Dagster's queue, and Dagster's daemon launches it later.
"""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from bonseyes_dagster.execution.launching.dagster_internals import (
    ACTIVE_RUN_STATUSES,
    PRIORITY_TAG,
    EngineEventData,
    LaunchRunContext,
    PoolGranularity,
    QueuedRunCoordinator,
    RunQueueConfig,
    SubmitRunContext,
    TagConcurrencyLimitsCounter,
    serializable_error_info_from_exc_info,
)
from bonseyes_dagster.execution.runs.run_names import name_run

__all__ = ["NamingRunCoordinator", "QueuePlace", "queue_place"]

_COUNTED = [*ACTIVE_RUN_STATUSES, DagsterRunStatus.QUEUED]
# Dagster's name of the daemon that launches queued runs. It is copied, because the import takes half a second.
_DAEMON = "QUEUED_RUN_COORDINATOR"
# The daemon writes a heartbeat every 30 s.
_HEARTBEAT_TIMEOUT_S = 75.0
_SORT_LIMIT = 1000


class NamingRunCoordinator(QueuedRunCoordinator):
    """Dagster's queued coordinator, with two changes: it names each run, and it queues only runs that must wait."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Name the run, then launch it, or queue it when the limit of live runs is reached."""
        run = context.dagster_run
        name_run(self._instance, run)
        if run.status is not DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        with self._lock():
            if not self._has_room(run):
                return super().submit_run(context)
            starting = DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
            self._instance.report_dagster_event(starting, run_id=run.run_id)
        self._launch(context)
        return self._read(run.run_id)

    def _launch(self, context: SubmitRunContext) -> None:
        """Launch a run after its RUN_STARTING event, as `DagsterInstance.launch_run` does."""
        run = self._read(context.dagster_run.run_id)
        try:
            self._instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=context.workspace))
        except BaseException:
            error = serializable_error_info_from_exc_info(sys.exc_info())
            self._instance.report_engine_event(error.message, run, EngineEventData.engine_error(error))
            self._instance.report_run_failed(run)
            raise

    def _read(self, run_id: str) -> DagsterRun:
        run = self._instance.get_run_by_id(run_id)
        assert run is not None, f"The run {run_id} was deleted while it was launched."
        return run

    def _has_room(self, run: DagsterRun) -> bool:
        """Tell whether the run may be launched now. Queued runs count as live: the daemon is about to launch them."""
        limits = _limits(self._instance)
        if self._instance.get_concurrency_config().pool_config.pool_granularity is PoolGranularity.RUN:
            return False  # only the daemon counts these pools
        if limits.tag_concurrency_limits:
            others = list(self._instance.get_runs(RunsFilter(statuses=_COUNTED)))
            if TagConcurrencyLimitsCounter(limits.tag_concurrency_limits, others).is_blocked(run):
                return False
        limit = limits.max_concurrent_runs
        return limit == -1 or self._instance.get_runs_count(RunsFilter(statuses=_COUNTED)) < limit

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let only one process at a time count the live runs and add one, so that the limit holds."""
        path = Path(self._instance.root_directory) / "coordinator.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The position of a queued run, from 1, and the reason why it waits, as a sentence."""

    position: int
    reason: str


def queue_place(instance: DagsterInstance, run: DagsterRun) -> QueuePlace:
    """Return the place of a queued run, in the order in which the daemon launches runs."""
    queued = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED]), limit=_SORT_LIMIT, ascending=True)
    order = [each.run_id for each in sorted(queued, key=_priority, reverse=True)]
    position = order.index(run.run_id) + 1 if run.run_id in order else len(order) + 1
    return QueuePlace(position, _reason(instance))


def _reason(instance: DagsterInstance) -> str:
    heartbeat = instance.get_daemon_heartbeats().get(_DAEMON)
    heartbeat_age_s = time.time() - heartbeat.timestamp if heartbeat else None
    if heartbeat_age_s is None or heartbeat_age_s > _HEARTBEAT_TIMEOUT_S:
        since = f"has been silent for {heartbeat_age_s:.0f} s" if heartbeat_age_s is not None else "has not started yet"
        return f"The run waits for Dagster's daemon, which launches queued runs and {since}."
    live = instance.get_runs_count(RunsFilter(statuses=ACTIVE_RUN_STATUSES))
    limit = _limits(instance).max_concurrent_runs
    if limit != -1 and live >= limit:
        return f"{live} runs are live, and {limit} may be at once (concurrency.runs.max_concurrent_runs)."
    return "Dagster's daemon launches the run within seconds, unless a limit on its tags or pools holds it back."


def _limits(instance: DagsterInstance) -> RunQueueConfig:
    limits = instance.get_concurrency_config().run_queue_config
    assert limits is not None  # the coordinator is a queued one
    return limits


def _priority(run: DagsterRun) -> int:
    try:
        return int(run.tags.get(PRIORITY_TAG, "0"))
    except ValueError:
        return 0
