"""Runs are launched at once below the limit of live runs, and wait in Dagster's queue otherwise."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import PRIORITY_TAG
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._daemon.types import DaemonHeartbeat

from bonseyes_dagster.execution.launching import coordinator
from bonseyes_dagster.execution.launching.coordinator import queue_place
from bonseyes_dagster.execution.runs import run_names
from tests.unit.execution.launching import JOBS, LaunchingProject, code_server, launching_project
from tests.waiting import until

pytestmark = pytest.mark.slow

QUEUED, STARTED = DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED
CANCELED, SUCCESS = DagsterRunStatus.CANCELED, DagsterRunStatus.SUCCESS


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of one code server for all tests."""
    with code_server(JOBS) as port:
        yield port


@pytest.fixture(scope="module")
def served(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchingProject]:
    """A project with a run server."""
    with launching_project(tmp_path_factory.mktemp("served"), port) as project:
        project.serve_runs()
        yield project


@pytest.fixture
def project(served: LaunchingProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LaunchingProject]:
    """The project with an empty folder for the notes of ops; after the test all its runs have ended."""
    monkeypatch.setattr(served, "folder", tmp_path)
    yield served
    served.release()
    for run in served.instance.get_runs(RunsFilter(statuses=[QUEUED])):
        served.instance.run_coordinator.cancel_run(run.run_id)
    until(lambda: all(run.is_finished for run in served.instance.get_runs()))
    served.instance.wipe_daemon_heartbeats()


@pytest.fixture
def limit(served: LaunchingProject, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets the limits of the coordinator; test_instance_settings.py sets them by dagster.yaml."""

    def limit(most: int, **tag_limit: Any) -> None:
        coordinator = served.instance.run_coordinator
        monkeypatch.setattr(coordinator, "_max_concurrent_runs", most)
        monkeypatch.setattr(coordinator, "_tag_concurrency_limits", [tag_limit] if tag_limit else [])

    return limit


def submit(project: LaunchingProject, job: str, **tags: str) -> str:
    """Create a run, submit it and return its id."""
    run_id = project.create(job, **tags)
    project.instance.submit_run(run_id, project.context.create_request_context())
    return run_id


@contextmanager
def daemon(project: LaunchingProject) -> Iterator[None]:
    """Run Dagster's queue daemon in a thread."""
    ended = threading.Event()
    queue = QueuedRunCoordinatorDaemon(interval_seconds=1)

    def run() -> None:
        while not ended.wait(0.2):
            list(queue.run_iteration(project.context))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def most_at_once(project: LaunchingProject, runs: list[str]) -> int:
    """Return the maximum number of runs that were live at the same time, by their events."""
    kinds = {DagsterEventType.RUN_STARTING: 1, DagsterEventType.RUN_SUCCESS: -1}
    changes = []
    for run_id in runs:
        for record in project.instance.get_records_for_run(run_id, of_type=set(kinds)).records:
            entry = record.event_log_entry
            changes.append((entry.timestamp, kinds[entry.get_dagster_event().event_type]))
    live = most = 0
    for _, change in sorted(changes):
        live += change
        most = max(most, live)
    return most


def test_limit_of_live_runs_is_kept(project: LaunchingProject, limit: Callable[..., None]) -> None:
    """Eight threads submit 60 runs with a limit of 5; all runs complete."""
    limit(5)
    before = project.instance.get_runs_count()
    with daemon(project):
        with ThreadPoolExecutor(8) as pool:
            runs = list(pool.map(lambda _: submit(project, "quick"), range(60)))
        until(lambda: project.instance.get_runs_count(RunsFilter(statuses=[SUCCESS])) == before + 60)
    assert 2 <= most_at_once(project, runs) <= 5
    assert len({run_names.run_name(project.run(run_id)) for run_id in runs}) == 60


@pytest.mark.parametrize("most", [2, -1])
def test_run_with_room_is_launched_without_the_daemon(
    project: LaunchingProject, limit: Callable[..., None], most: int
) -> None:
    """-1 means no limit."""
    limit(most)
    assert project.wait(submit(project, "quick")) is SUCCESS


def test_queue_place_gives_the_reason(project: LaunchingProject, limit: Callable[..., None]) -> None:
    """Without the daemon a run stays queued. It can be cancelled. A higher priority comes before an older run."""
    limit(1)
    submit(project, "waiting")
    project.wait_for_pid()
    first, second = submit(project, "quick"), submit(project, "quick")
    urgent = submit(project, "quick", **{PRIORITY_TAG: "3"})
    places = [queue_place(project.instance, project.run(each)) for each in (first, second, urgent)]
    assert [place.position for place in places] == [2, 3, 1]
    assert "Dagster's daemon, which launches queued runs and has not started yet" in places[0].reason
    beat(project, age_s=0)
    assert "1 runs are live, and 1 may be at once" in queue_place(project.instance, project.run(first)).reason
    beat(project, age_s=coordinator._HEARTBEAT_TIMEOUT_S + 10)
    assert "has been silent for" in queue_place(project.instance, project.run(first)).reason
    assert project.instance.run_coordinator.cancel_run(second)
    assert project.run(second).status is CANCELED
    project.release()
    assert project.run(first).status is QUEUED
    with daemon(project):
        assert [project.wait(run_id) for run_id in (urgent, first)] == [SUCCESS, SUCCESS]
    assert project.run(second).status is CANCELED


def beat(project: LaunchingProject, *, age_s: float) -> None:
    """Write a heartbeat of the queue daemon that is `age_s` old."""
    heartbeat = DaemonHeartbeat(time.time() - age_s, "QUEUED_RUN_COORDINATOR", "test", [])
    project.instance.add_daemon_heartbeat(heartbeat)


def test_tag_limits_hold_while_there_is_room(project: LaunchingProject, limit: Callable[..., None]) -> None:
    """A project sets them in its dagster.yaml."""
    limit(10, key="team", value="a", limit=1)
    submit(project, "waiting", team="a")
    project.wait_for_pid()
    blocked = submit(project, "quick", team="a")
    assert project.wait(submit(project, "quick", team="b")) is SUCCESS
    assert project.run(blocked).status is QUEUED
    project.release()
    with daemon(project):
        assert project.wait(blocked) is SUCCESS


def test_run_that_cannot_be_launched_fails_with_the_reason(
    project: LaunchingProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the error, as with Dagster's own coordinator."""

    def refuse(_context: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(project.instance.run_launcher, "launch_run", refuse)
    run_id = project.create("quick")
    with pytest.raises(OSError, match="no more processes"):
        project.instance.submit_run(run_id, project.context.create_request_context())
    assert project.run(run_id).status is DagsterRunStatus.FAILURE
    assert "no more processes" in project.messages(run_id)
