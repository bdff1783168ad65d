"""A run launcher's duties to Dagster, tested on ours and on Dagster's; and the recovery of runs by our launcher."""

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
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus
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
from tests.unit.execution.every_launcher import *  # noqa: F403 - the tests of every launcher, for these two
from tests.unit.execution.launching import (
    JOBS,
    LaunchingProject,
    code_server,
    launching_project,
    own_jobs,
    wait_until,
)
from tests.waiting import until

pytestmark = pytest.mark.slow

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def database() -> Callable[[], str | None]:
    """A function that creates a database; here it creates none, so that runs are in SQLite."""
    return lambda: None


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of one code server for all tests: it describes jobs, and starts runs for Dagster's own launcher."""
    with code_server(JOBS) as port:
        yield port


@pytest.fixture(scope="module")
def warm(port, database, tmp_path_factory) -> Iterator[LaunchingProject]:
    """A project with our launcher, and a run server that no test stops."""
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
    """A project for each launcher; tests/docker has another with containers."""
    project: LaunchingProject = request.getfixturevalue(request.param)
    return project


@pytest.fixture
def served(warm, tmp_path, monkeypatch) -> Iterator[LaunchingProject]:
    """The project with a run server, and an empty folder for the notes of ops."""
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
    """The run server starts a new process, which executes only the unfinished steps."""
    run_id = served.launch("waiting")
    os.kill(served.wait_for_pid(), signal.SIGKILL)
    served.wait_for_pid(2)
    assert served.run(run_id).status == DagsterRunStatus.STARTED
    served.release()
    assert served.wait(run_id) == SUCCESS
    assert [line for line in served.notes() if not line.startswith("waiting")] == ["first", "last 2"]
    assert "was killed by signal 9" in served.messages(run_id)


def test_a_run_that_is_cancelled_while_it_starts_is_not_resumed(served):
    """Its process may report the start after the cancellation, and Dagster then has the run as started."""
    run_id = served.launch("waiting")
    pid = served.wait_for_pid()
    run = served.run(run_id)
    served.instance.report_run_canceling(run)
    started = DagsterEvent(DagsterEventType.RUN_START.value, job_name=run.job_name)
    served.instance.report_dagster_event(started, run_id=run_id)
    assert served.run(run_id).status == DagsterRunStatus.STARTED
    os.kill(pid, signal.SIGTERM)
    assert served.wait(run_id) == CANCELED


def test_resume_keeps_retries_skips_failures_and_dynamic_steps(served):
    """A step that was retried, skipped, failed or mapped before the kill is not executed again."""
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


def test_run_that_loses_10_processes_without_progress_fails(served):
    """The first resumes are immediate, later resumes wait, and after the tenth loss the run fails."""
    run_id = served.launch("waiting")
    served.wait_for_pid()
    pid = 0
    for _ in range(4):
        assert "after a pause" not in served.messages(run_id)
        pid = kill_run(served, run_id, pid)
    wait_until(lambda: "after a pause" in served.messages(run_id))
    assert run_id not in served.servers[0].ping()["runs"]
    report_resumes(served, run_id, 6)
    # A check by the daemon ends the pause.
    assert not any(execute_run_monitoring_iteration(served.context, logging.getLogger("monitoring")))
    kill_run(served, run_id, pid)
    assert served.wait(run_id) == FAILURE
    assert "10 times it was resumed, and lost its process before a step ended" in served.messages(run_id)


def kill_run(project: LaunchingProject, run_id: str, former: int) -> int:
    """Kill a run's process as soon as it is another process than `former`; return its pid."""
    folder = records_folder(project.servers[0].socket)

    def pid() -> int | None:
        record, is_alive = read_record(folder, run_id)
        return record.pid if record and is_alive and record.pid != former else None

    found: int = wait_until(pid)
    os.kill(found, signal.SIGKILL)
    return found


def report_resumes(project: LaunchingProject, run_id: str, times: int) -> None:
    """Write the events of `times` resumes into the run's log."""
    for _ in range(times):
        project.instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, project.run(run_id))


def test_run_that_makes_progress_is_resumed_any_number_of_times(served):
    """Only losses since the last end of a step count."""
    run_id = served.create("waiting")
    report_resumes(served, run_id, 10)
    served.instance.launch_run(run_id, served.context.create_request_context())
    os.kill(served.wait_for_pid(), signal.SIGKILL)
    served.wait_for_pid(2)
    served.release()
    assert served.wait(run_id) == SUCCESS


def test_next_server_adopts_the_runs_of_a_killed_server(project):
    """A run goes on without a server. The next server resumes and terminates it like its own runs."""
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


def test_events_written_after_the_death_of_the_server_are_kept(project):
    """Meanwhile another process opens and closes the same SQLite database."""
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


def test_next_server_resumes_a_run_killed_with_its_server(project):
    """As after a crash of the machine: only the record is left, and it names no live process."""
    first = project.serve_runs()
    run_id = project.launch("waiting")
    first.stop(signal.SIGKILL)
    os.kill(project.wait_for_pid(), signal.SIGKILL)
    project.serve_runs()
    project.wait_for_pid(2)
    project.release()
    assert project.wait(run_id) == SUCCESS


def test_run_killed_before_its_start_is_started(project):
    """If a process dies in STARTING, the next process starts the run instead of resuming it."""
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
    project.serve_runs()  # the launcher repeats its request, and finds this server
    launch.join()
    assert project.wait(run_id) == SUCCESS
    assert "Started execution" in project.messages(run_id)


def test_on_stop_terminate_stops_runs_and_the_next_server_resumes_them(project):
    """The runs' processes end with the server, but no run fails."""
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


def test_monitoring_resumes_a_run_without_a_run_server(project):
    """The daemon starts a process that loads everything first."""
    server = project.serve_runs()
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    server.stop()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not read_record(records_folder(server.socket), run_id)[1])
    # While its process loads, the run does not count as lost.
    for _ in range(3):
        list(execute_run_monitoring_iteration(project.context, logging.getLogger("monitoring")))
    project.wait_for_pid(2)
    project.release()
    assert project.wait(run_id) == SUCCESS
    assert project.messages(run_id).count(RESUME_RUN_LOG_MESSAGE) == 1


def test_monitoring_fails_a_run_after_10_losses_without_progress(project):
    """The limit also holds without a run server."""
    server = project.serve_runs()
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    server.stop()
    report_resumes(project, run_id, 10)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not read_record(records_folder(server.socket), run_id)[1])
    list(execute_run_monitoring_iteration(project.context, logging.getLogger("monitoring")))
    assert project.wait(run_id) == FAILURE
    assert len(project.pids()) == 1


def test_monitoring_leaves_healthy_runs_alone(served):
    """The daemon must not resume a run that the run server handles."""
    run_id = served.launch("waiting")
    served.wait_for_pid()
    for _ in range(3):
        assert not any(execute_run_monitoring_iteration(served.context, logging.getLogger("monitoring")))
    assert len(served.pids()) == 1
    served.release()
    assert served.wait(run_id) == SUCCESS


def test_a_run_never_has_two_processes(served):
    """The server answers `taken` for a run that has a process; a process that another way started finds the lock."""
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


def test_late_process_of_an_ended_run_writes_no_events(served):
    """Another process has completed the run while this process loaded."""
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
    """After the grace period its process group is killed, and the run is cancelled."""
    project.serve_runs("--grace", "0.5")
    run_id = project.launch("stubborn")
    pid = project.wait_for_pid()
    started = time.monotonic()
    project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED
    assert time.monotonic() - started < 9  # without --grace it would be 10 s
    assert not Path(f"/proc/{pid}").exists()


def test_a_run_that_does_not_stop_is_killed_by_the_next_server(project):
    """The first server sent SIGTERM, and was killed before the grace period ended."""
    first = project.serve_runs("--grace", "60")
    run_id = project.launch("waiting")
    os.kill(project.wait_for_pid(), signal.SIGSTOP)
    project.instance.run_launcher.terminate(run_id)
    first.stop(signal.SIGKILL)
    project.serve_runs("--grace", "0.5")
    assert project.wait(run_id) == CANCELED


def test_run_over_its_maximum_runtime_is_killed_by_the_next_server(project):
    """The run has failed already, but its process is still alive."""
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


# --- without a run server


def test_without_a_run_server_the_stock_launcher_starts_runs(project):
    """Such runs can be checked and terminated."""
    run_id = project.launch("waiting")
    project.wait_for_pid()
    assert GRPC_INFO_TAG in project.run(run_id).tags
    health = project.instance.run_launcher.check_run_worker_health(project.run(run_id))
    assert health.status == WorkerStatus.RUNNING
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED


def test_launcher_terminates_a_run_without_a_run_server(project):
    """The launcher itself sends the signals."""
    server = project.serve_runs()
    run_id = project.launch("waiting")
    project.wait_for_pid()
    server.stop()
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED


def test_second_server_at_a_socket_refuses_to_start(served):
    """The first server goes on."""
    [server] = served.servers
    second = served.serve_runs()
    served.servers.remove(second)
    assert second.process.wait(30) == 1
    assert "Another run server" in server.log.read_text()
    assert server.ping()["ok"]


def test_missing_server_raises_run_server_gone(tmp_path):
    """Only without a server may the launcher start the run in another way; after a refusal it must not."""
    with pytest.raises(RunServerGoneError):
        RunServerClient(tmp_path / "nowhere" / "socket").ask("ping")


# --- new code


def test_next_run_executes_edited_code(tmp_path):
    """A run launched right after an edit executes the edited code. A live run is not disturbed."""
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
