"""Tests for every run launcher; the fixture `shared` gives each test a project with a launcher."""

import threading

import pytest
from dagster import DagsterRunStatus

from tests.unit.execution.launching import wait_until

__all__ = [
    "test_a_terminated_run_is_cancelled",
    "test_run_has_the_status_of_its_ops",
    "test_runs_launched_from_two_threads_complete",
]

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED


@pytest.mark.parametrize(("job", "status"), [("quick", SUCCESS), ("failing", FAILURE)])
def test_run_has_the_status_of_its_ops(shared, job, status):
    """After the end of a run, `terminate` returns False."""
    run_id = shared.launch(job)
    assert shared.wait(run_id) == status
    assert shared.instance.run_launcher.terminate(run_id) is False


def test_a_terminated_run_is_cancelled(shared):
    """Its process ends, too."""
    before = len(shared.pids())
    run_id = shared.launch("waiting")
    pid = shared.wait_for_pid(before + 1)
    assert shared.instance.run_launcher.terminate(run_id)
    assert shared.wait(run_id) == CANCELED
    wait_until(lambda: not shared.lives(run_id, pid))


def test_runs_launched_from_two_threads_complete(shared):
    """A server with threads launches runs concurrently."""
    run_ids: list[str] = []
    threads = [threading.Thread(target=lambda: run_ids.append(shared.launch("quick"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [shared.wait(run_id) for run_id in run_ids] == [SUCCESS] * 2
