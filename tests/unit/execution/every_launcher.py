"""What a run launcher owes Dagster; each test gets a project with a launcher by the fixture `shared`."""

import threading

import pytest
from dagster import DagsterRunStatus

from tests.unit.execution.launching import wait_until

__all__ = [
    "test_a_run_ends_as_its_ops_do",
    "test_a_terminated_run_is_cancelled",
    "test_runs_launched_by_several_threads_all_end",
]

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED


@pytest.mark.parametrize(("job", "status"), [("quick", SUCCESS), ("failing", FAILURE)])
def test_a_run_ends_as_its_ops_do(shared, job, status):
    """Success and failure of ops are the run's; then there is nothing to terminate, and `terminate` says so."""
    run_id = shared.launch(job)
    assert shared.wait(run_id) == status
    assert shared.instance.run_launcher.terminate(run_id) is False


def test_a_terminated_run_is_cancelled(shared):
    """`terminate` stops a run, and its status says that it was on purpose."""
    before = len(shared.pids())
    run_id = shared.launch("waiting")
    pid = shared.wait_for_pid(before + 1)
    assert shared.instance.run_launcher.terminate(run_id)
    assert shared.wait(run_id) == CANCELED
    wait_until(lambda: not shared.lives(run_id, pid))


def test_runs_launched_by_several_threads_all_end(shared):
    """A server with threads launches runs at the same time."""
    run_ids: list[str] = []
    threads = [threading.Thread(target=lambda: run_ids.append(shared.launch("quick"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [shared.wait(run_id) for run_id in run_ids] == [SUCCESS] * 2
