"""What a run launcher owes Dagster, on ours and on Dagster's own; and what ours does when something dies."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._daemon.monitoring import RESUME_RUN_LOG_MESSAGE, execute_run_monitoring_iteration

from bonseyes_dagster.execution.launching.run_protocol import (
    RunServerClient,
    RunServerGoneError,
    records_folder,
    storage_id,
)
from bonseyes_dagster.execution.runs.process_record import read_record
from bonseyes_dagster.execution.storage.sqlite_storage import close_connections
from tests.unit.execution.every_launcher import *  # noqa: F403 - the tests of every launcher, on these two
from tests.unit.execution.launching import (
    JOBS,
    LaunchingProject,
    code_server,
    launching_project,
    own_jobs,
    wait_until,
)
from tests.waiting import until

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def database() -> Callable[[], str | None]:
    """What makes the database of a project: none, so that its runs are in SQLite. tests/docker has them in Postgres."""
    return lambda: None


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The code server of all tests: it only describes jobs, or starts runs as Dagster's launcher has it."""
    with code_server(JOBS) as port:
        yield port


@pytest.fixture(scope="module")
def warm(port, database, tmp_path_factory) -> Iterator[LaunchingProject]:
    """A project with our launcher and a run server that no test ends."""
    with launching_project(tmp_path_factory.mktemp("warm"), port, postgres=database()) as project:
        project.serve_runs()
        yield project


@pytest.fixture(scope="module")
def stock(port, tmp_path_factory) -> Iterator[LaunchingProject]:
    """A project with Dagster's own launcher."""
    with launching_project(tmp_path_factory.mktemp("stock"), port, launcher="stock") as project:
        yield project


@pytest.fixture(params=["warm", "stock"])
def shared(request) -> LaunchingProject:
    """A project for each launcher that must do what Dagster expects; tests/docker has one with containers."""
    project: LaunchingProject = request.getfixturevalue(request.param)
    return project


@pytest.fixture
def served(warm, tmp_path, monkeypatch) -> Iterator[LaunchingProject]:
    """The project with a run server, and a fresh folder for what ops note."""
    monkeypatch.setattr(warm, "folder", tmp_path)
    yield warm
    warm.kill_waiting()


@pytest.fixture
def project(tmp_path, port, database) -> Iterator[LaunchingProject]:
    """A project with our launcher, and no run server yet."""
    with launching_project(tmp_path, port, postgres=database()) as project:
        yield project


# --- every launcher, runs that survive


def test_a_killed_run_is_resumed_at_once(served):
    """The run server starts a new process, which does only what is left to do."""
    run_id = served.launch("waiting")
    os.kill(served.wait_for_pid(), signal.SIGKILL)
    served.wait_for_pid(2)
    assert served.run(run_id).status == DagsterRunStatus.STARTED
    served.release()
    assert served.wait(run_id) == SUCCESS
    assert [line for line in served.notes() if not line.startswith("waiting")] == ["first", "last 2"]
    assert "was killed by signal 9" in served.messages(run_id)


def test_resuming_takes_up_retries_skips_failures_and_dynamic_steps(served):
    """What was retried, skipped, failed or mapped before the kill is so after it, once."""
    run_id = served.launch("involved")
    os.kill(served.wait_for_pid(3), signal.SIGKILL)
    served.wait_for_pid(6)
    served.release()
    assert served.wait(run_id) == FAILURE
    lines = [line for line in served.notes() if not line.startswith("waiting")]
    assert lines == ["flaky 0", "flaky 1", "total [2, 3, 4]"]
    kinds = Counter(
        (entry.step_key, entry.dagster_event.event_type_value)
        for entry in served.instance.all_logs(run_id)
        if entry.dagster_event
    )
    assert kinds["skipped", "STEP_SKIPPED"] == 1
    assert kinds["broken", "STEP_FAILURE"] == 1
    assert kinds["fan_out", "STEP_START"] == 1


def test_a_run_that_only_loses_its_process_fails(served):
    """It is resumed at once, later after a pause, and at last not any more."""
    run_id = served.launch("waiting")
    served.wait_for_pid()
    pid = 0
    for _ in range(4):
        assert "after a pause" not in served.messages(run_id)
        pid = kill_run(served, run_id, pid)
    wait_until(lambda: "after a pause" in served.messages(run_id))
    assert run_id not in served.servers[0].ping()["runs"]
    lose(served, run_id, 6)
    # The daemon's look ends the pause.
    assert not any(execute_run_monitoring_iteration(served.context, logging.getLogger("monitoring")))
    kill_run(served, run_id, pid)
    assert served.wait(run_id) == FAILURE
    assert "10 times it was resumed, and lost its process before a step ended" in served.messages(run_id)


def kill_run(project: LaunchingProject, run_id: str, former: int) -> int:
    """Kill a run's process, if another one than `former`, as soon as it takes the run up; return it."""
    folder = records_folder(project.servers[0].socket)

    def pid() -> int | None:
        record, is_alive = read_record(folder, run_id)
        return record.pid if record and is_alive and record.pid != former else None

    found: int = wait_until(pid)
    os.kill(found, signal.SIGKILL)
    return found


def lose(project: LaunchingProject, run_id: str, times: int) -> None:
    """Have the run's log tell of so many more processes."""
    for _ in range(times):
        project.instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, project.run(run_id))


def test_a_run_that_gets_on_is_resumed_as_often_as_need_be(served):
    """What was lost before a step ended does not count any more."""
    run_id = served.create("waiting")
    lose(served, run_id, 10)
    served.instance.launch_run(run_id, served.context.create_request_context())
    os.kill(served.wait_for_pid(), signal.SIGKILL)
    served.wait_for_pid(2)
    served.release()
    assert served.wait(run_id) == SUCCESS


def test_runs_outlive_their_server_and_are_adopted(project):
    """A run goes on without a server; the next server watches over it as over its own."""
    first = project.serve_runs()
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    first.stop(signal.SIGKILL)
    health = project.instance.run_launcher.check_run_worker_health(project.run(run_id))
    assert health.status == WorkerStatus.RUNNING
    second = project.serve_runs()
    assert second.ping()["runs"] == {run_id: pid}
    os.kill(pid, signal.SIGKILL)
    assert project.wait_for_pid(2) != pid
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED


def test_what_a_run_writes_after_its_server_died_is_kept(project):
    """Though whoever looks at the database meanwhile is the only other one that has it open."""
    server = project.serve_runs()
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    close_connections()
    server.stop(signal.SIGKILL)
    look = f"from dagster import DagsterInstance; print(DagsterInstance.get().get_run_by_id({run_id!r}).status.name)"
    environ = {**os.environ, "DAGSTER_HOME": str(project.home)}
    statuses = []
    for _ in range(2):
        statuses.append(subprocess.check_output([sys.executable, "-c", look], env=environ, text=True).strip())
        project.release()
        wait_until(lambda: not project.lives(run_id, pid))
    assert statuses == ["STARTED", "SUCCESS"]


def test_a_run_killed_together_with_its_server_is_resumed_when_one_comes_back(project):
    """As after a crash of the machine: only the record is left, and it names nobody."""
    first = project.serve_runs()
    run_id = project.launch("waiting")
    first.stop(signal.SIGKILL)
    os.kill(project.wait_for_pid(), signal.SIGKILL)
    project.serve_runs()
    project.wait_for_pid(2)
    project.release()
    assert project.wait(run_id) == SUCCESS


def test_a_run_killed_before_it_started_is_started(project):
    """A process that dies in STARTING is replaced by one that starts the run, not one that resumes it."""
    server = project.serve_runs()
    run_id = project.create("quick")
    server.process.send_signal(signal.SIGSTOP)
    launch = threading.Thread(
        target=project.instance.launch_run, args=(run_id, project.context.create_request_context())
    )
    launch.start()
    wait_until(lambda: project.run(run_id).status == DagsterRunStatus.STARTING)
    server.process.kill()
    server.process.wait()
    project.serve_runs()  # the launcher is still asking, and finds this one
    launch.join()
    assert project.wait(run_id) == SUCCESS
    assert "Started execution" in project.messages(run_id)


def test_a_stopping_server_may_take_its_runs_along_and_they_are_resumed(project):
    """With `--on-stop terminate` runs end with their server, but none fails: the next server resumes them."""
    first = project.serve_runs("--on-stop", "terminate")
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    first.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert project.run(run_id).status == DagsterRunStatus.STARTED
    project.serve_runs()
    project.wait_for_pid(2)
    project.release()
    assert project.wait(run_id) == SUCCESS


def test_monitoring_resumes_without_a_run_server(project):
    """With only the daemon left, a killed run is taken up by a process that loads everything first."""
    server = project.serve_runs()
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    server.stop()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not read_record(records_folder(server.socket), run_id)[1])
    # While its process loads, the run is not taken for lost again.
    for _ in range(3):
        list(execute_run_monitoring_iteration(project.context, logging.getLogger("monitoring")))
    project.wait_for_pid(2)
    project.release()
    assert project.wait(run_id) == SUCCESS
    assert project.messages(run_id).count(RESUME_RUN_LOG_MESSAGE) == 1


def test_monitoring_resumes_a_run_that_gets_no_further_no_more(project):
    """Without a run server, too, that ends."""
    server = project.serve_runs()
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    server.stop()
    lose(project, run_id, 10)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not read_record(records_folder(server.socket), run_id)[1])
    list(execute_run_monitoring_iteration(project.context, logging.getLogger("monitoring")))
    assert project.wait(run_id) == FAILURE
    assert len(project.pids()) == 1


def test_monitoring_leaves_healthy_runs_alone(served):
    """The daemon's poll and the run server do not both resume a run."""
    run_id = served.launch("waiting")
    served.wait_for_pid()
    for _ in range(3):
        assert not any(execute_run_monitoring_iteration(served.context, logging.getLogger("monitoring")))
    assert len(served.pids()) == 1
    served.release()
    assert served.wait(run_id) == SUCCESS


def test_a_run_never_has_two_processes(served):
    """Asked again for a run that has a process, the server says that it is taken; a cold process finds the lock."""
    socket = served.servers[0].socket
    run_id = served.launch("waiting")
    pid = served.wait_for_pid()
    client = RunServerClient(socket)
    for resume in (False, True):
        answer = client.ask("launch", run_id=run_id, storage=storage_id(served.instance), resume=resume)
        assert answer["taken"]
    served.instance.run_launcher._start_cold(served.run(run_id))
    time.sleep(4)
    assert served.pids() == [pid]
    assert read_record(records_folder(socket), run_id)[0].pid == pid
    served.release()
    assert served.wait(run_id) == SUCCESS


def test_a_process_that_comes_too_late_has_nothing_to_say(served):
    """Another one did what was left while it loaded: the log of a run that has ended well ends with that."""
    run_id = served.launch("quick")
    assert served.wait(run_id) == SUCCESS
    until(lambda: "Process for run exited" in served.messages(run_id))
    log = served.messages(run_id)
    folder = records_folder(served.servers[0].socket)
    command = [sys.executable, "-m", "bonseyes_dagster.execution.processes.run_worker", "--folder", folder]
    environment = {**os.environ, "DAGSTER_HOME": str(served.home)}
    subprocess.run([*command, "--run-id", run_id, "--resume"], env=environment, check=True, timeout=60)
    assert served.messages(run_id) == log


def test_a_run_that_does_not_stop_is_killed(project):
    """After the grace period, with all that it started; the run is cancelled all the same."""
    project.serve_runs("--grace", "0.5")
    run_id = project.launch("stubborn")
    pid = project.wait_for_pid()
    started = time.monotonic()
    project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED
    assert time.monotonic() - started < 9  # 10 s is what it would be given without --grace
    assert not Path(f"/proc/{pid}").exists()


def test_a_run_that_does_not_stop_is_killed_by_the_next_server(project):
    """The one that had told it to stop was killed before the run's time was over."""
    first = project.serve_runs("--grace", "60")
    run_id = project.launch("waiting")
    os.kill(project.wait_for_pid(), signal.SIGSTOP)
    project.instance.run_launcher.terminate(run_id)
    first.stop(signal.SIGKILL)
    project.serve_runs("--grace", "0.5")
    assert project.wait(run_id) == CANCELED


def test_a_run_that_took_too_long_is_killed_by_the_next_server(project):
    """The run has failed already, and only its process is left."""
    first = project.serve_runs("--grace", "60")
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    os.kill(pid, signal.SIGSTOP)
    project.instance.report_run_canceling(
        project.run(run_id), "Canceling due to exceeding maximum runtime of 1 seconds."
    )
    project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == FAILURE
    first.stop(signal.SIGKILL)
    assert Path(f"/proc/{pid}").exists()
    project.serve_runs("--grace", "0.5")
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert project.run(run_id).status == FAILURE


# --- without a server, with another's


def test_without_a_server_runs_are_launched_as_dagster_does(project):
    """The stock launcher takes over; its runs can be terminated and looked at."""
    run_id = project.launch("waiting")
    project.wait_for_pid()
    assert GRPC_INFO_TAG in project.run(run_id).tags
    health = project.instance.run_launcher.check_run_worker_health(project.run(run_id))
    assert health.status == WorkerStatus.RUNNING
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED


def test_termination_needs_no_server(project):
    """A run whose server has gone is stopped by the launcher itself."""
    server = project.serve_runs()
    run_id = project.launch("waiting")
    project.wait_for_pid()
    server.stop()
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED


def test_there_is_one_server_for_a_socket(served):
    """A second server refuses to start, and the first goes on."""
    [server] = served.servers
    second = served.serve_runs()
    served.servers.remove(second)
    assert second.process.wait(30) == 1
    assert "Another run server" in server.log.read_text()
    assert server.ping()["ok"]


def test_nobody_listening_is_told_apart_from_a_refusal(tmp_path):
    """Only a missing server may be replaced by another way of launching."""
    with pytest.raises(RunServerGoneError):
        RunServerClient(tmp_path / "nowhere" / "socket").ask("ping")


# --- new code


def test_changed_code_is_what_the_next_run_executes(tmp_path):
    """A run launched right after an edit executes the edited code; a run that is alive is not harmed."""
    jobs = own_jobs(tmp_path)
    with code_server(jobs) as port, launching_project(tmp_path, port, jobs=jobs) as project:
        server = project.serve_runs()
        alive = project.launch("waiting")
        pid = project.wait_for_pid()
        jobs.write_text(jobs.read_text().replace('ANSWER = "first"', 'ANSWER = "second"'))
        run_id = project.launch("answering")
        assert project.wait(run_id) == SUCCESS
        assert "the answer is second" in project.messages(run_id)
        assert server.ping()["runs"][alive] == pid

        jobs.write_text(jobs.read_text() + "\nthis is no Python\n")
        assert project.wait(project.launch("answering")) == FAILURE
        assert "SyntaxError" in server.ping()["load_error"]

        jobs.write_text(jobs.read_text().replace("\nthis is no Python\n", ""))
        assert project.wait(project.launch("answering")) == SUCCESS
        project.release()
        assert project.wait(alive) == SUCCESS
