"""A container for each run: the launcher's tests, kills, and refusals of the socket proxy."""

import copy
import http.client
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from dagster import DagsterRunStatus
from dagster._core.launcher import WorkerStatus
from dagster._daemon.monitoring import execute_run_monitoring_iteration

from tests.docker.postgres import Postgres, docker, running_postgres
from tests.docker.run_containers import ContainerProject, container_project, image_with_jobs, new_folder
from tests.launching_project import wait_until
from tests.unit.execution.every_launcher import *  # noqa: F403 - the tests of every launcher, on this one
from tests.unit.execution.launching import code_server
from tests.unit.execution.test_run_container import HOSTILE, changed

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """One Postgres for the runs of all tests."""
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module")
def project(postgres, tmp_path_factory) -> Iterator[ContainerProject]:
    """One project for all tests; a test that kills a part of it starts it again."""
    folder = tmp_path_factory.mktemp("runs")
    folder.chmod(0o755)
    with (
        image_with_jobs() as (image, jobs),
        code_server(jobs) as port,
        container_project(folder, port, image, jobs, postgres) as project,
    ):
        yield project


@pytest.fixture
def shared(project, monkeypatch) -> Iterator[ContainerProject]:
    """The project with a new folder for the ops' notes, and without containers."""
    monkeypatch.setattr(project, "folder", new_folder(project))
    yield project
    project.kill_waiting()


# --- containers


def test_container_of_a_run_has_few_rights(shared):
    """It has an unprivileged user, no capabilities, limits, one writable volume, and no visible password."""
    run_id = shared.launch("waiting")
    shared.wait_for_pid()
    [container] = shared.containers(run_id)
    [found] = json.loads(docker("inspect", container))
    host = found["HostConfig"]
    assert found["Config"]["User"] == "10001:10001"
    assert (host["ReadonlyRootfs"], host["Privileged"], host["CapDrop"]) == (True, False, ["ALL"])
    assert host["Memory"] and host["PidsLimit"] and host["CpuQuota"]
    assert [mount["Destination"] for mount in found["Mounts"]] == ["/dagster"]
    assert "for-tests" not in json.dumps(found)
    assert found["Config"]["Labels"]["com.docker.compose.project"] == shared.name
    shared.release()
    assert shared.wait(run_id) == SUCCESS
    wait_until(lambda: not shared.containers())


def test_killed_run_is_resumed_within_seconds(shared):
    """A new container executes only the remaining steps."""
    run_id = shared.launch("waiting")
    shared.wait_for_pid()
    shared.kill(run_id)
    killed = time.monotonic()
    wait_until(lambda: shared.containers(run_id, state="running"))
    assert time.monotonic() - killed < 45
    wait_until(lambda: len(shared.pids()) == 2)
    shared.release()
    assert shared.wait(run_id) == SUCCESS
    assert [line for line in shared.notes() if not line.startswith("waiting")] == ["first", "last 2"]
    assert "is gone (exited (137)" in shared.messages(run_id)
    wait_until(lambda: not shared.containers())


def test_run_killed_before_its_start_is_started_again(shared):
    """The container is killed while Python still imports; the job waits, so that it cannot end before the kill."""
    run_id = shared.launch("waiting")
    shared.kill(run_id)
    shared.release()
    assert shared.wait(run_id) == SUCCESS


def test_daemon_and_watch_do_not_both_resume(shared):
    """Dagster's monitoring and the watch both find the run, but it must have only one process."""
    run_id = shared.launch("waiting")
    shared.wait_for_pid()
    shared.kill(run_id)
    deadline = time.monotonic() + 90
    while len(shared.pids()) < 2 and time.monotonic() < deadline:
        assert not any(execute_run_monitoring_iteration(shared.context, logging.getLogger("monitoring")))
        time.sleep(0.2)
    time.sleep(5)
    assert len(shared.pids()) == 2
    assert len(shared.containers(run_id, state="running")) == 1
    assert shared.instance.run_launcher.check_run_worker_health(shared.run(run_id)).status == WorkerStatus.RUNNING
    shared.release()
    assert shared.wait(run_id) == SUCCESS


def test_cancelled_run_that_does_not_stop_is_killed(shared):
    """It is killed after the grace period, and its phase is cancelled."""
    run_id = shared.launch("stubborn")
    shared.wait_for_pid()
    assert shared.instance.run_launcher.terminate(run_id)
    assert shared.wait(run_id, 60) == CANCELED
    wait_until(lambda: not shared.containers())


def test_container_that_was_never_started_is_removed(shared):
    """Its launcher died between creation and start; the watch removes it and creates another one."""
    run_id = shared.create("quick")
    # Do not raise an exception here: Dagster would mark the run as failed.
    code = (
        "import os, sys; from dagster import DagsterInstance; from docker.models.containers import Container; "
        "Container.start = lambda *_, **__: os._exit(9); "
        "DagsterInstance.from_config(sys.argv[1]).launch_run(sys.argv[2], None)"
    )
    died = subprocess.run([sys.executable, "-c", code, shared.home, run_id], capture_output=True, text=True)
    assert died.returncode == 9, died.stderr
    assert len(shared.containers(run_id, state="created")) == 1
    assert shared.wait(run_id, 90) == SUCCESS
    wait_until(lambda: not shared.containers())


@pytest.mark.parametrize("victims", ["watch", "proxy", "postgres", "watch proxy postgres"])
def test_run_completes_after_a_kill_of_other_services(shared, postgres, victims):
    """Runs need none of these services to stay alive; a run killed with them is resumed when they are back."""
    others: dict[str, Any] = {"watch": shared.watch, "proxy": shared.proxy}
    run_id = shared.launch("waiting")
    shared.wait_for_pid()
    for name in victims.split():
        others[name].stop(9) if name in others else postgres.kill()
    shared.kill(run_id)
    time.sleep(3)
    for name in victims.split():
        (others.get(name) or postgres).start()
    wait_until(lambda: len(shared.pids()) == 2, 90)
    shared.release()
    assert shared.wait(run_id) == SUCCESS


def test_launch_without_an_engine_fails_with_the_reason(shared):
    """Nothing is left that could run later."""
    from dagster._core.errors import DagsterLaunchFailedError

    shared.proxy.stop()
    run_id = shared.create("quick")
    try:
        with pytest.raises(DagsterLaunchFailedError, match="cannot be started"):
            shared.instance.launch_run(run_id, shared.context.create_request_context())
    finally:
        shared.proxy.start()
    wait_until(lambda: _ask(shared, "GET", "/_ping")[0] == 200)
    shared.instance.delete_run(run_id)


# --- the proxy


def _ask(project: ContainerProject, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", project.engine_port, timeout=30)
    try:
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError as error:
        return 0, str(error)
    finally:
        connection.close()


@pytest.fixture
def creation(shared, monkeypatch) -> dict[str, Any]:
    """The body of the launcher's request for a container."""
    from docker.api.client import APIClient

    asked: list[dict[str, Any]] = []
    post = APIClient._post_json

    def keep(self: Any, url: str, data: Any, **options: Any) -> Any:
        if url.endswith("/containers/create"):
            asked.append(copy.deepcopy(data))
        return post(self, url, data, **options)

    monkeypatch.setattr(APIClient, "_post_json", keep)
    assert shared.wait(shared.launch("quick")) == SUCCESS
    wait_until(lambda: not shared.containers())
    return asked[0]


def test_proxy_refuses_every_other_container(shared, creation):
    """It refuses a body with one wrong value, and the engine creates nothing."""
    for name, change in HOSTILE.items():
        status, text = _ask(shared, "POST", "/v1.41/containers/create", changed(creation, change))
        assert (status, "not a container of a run" in text) == (403, True), (name, text)
    assert not shared.containers()


def test_proxy_refuses_ambiguous_bodies(shared, creation):
    """The bodies have duplicate keys, no JSON, no object, too many bytes, or no length."""
    whole = json.dumps(creation)
    twice = whole.replace('"HostConfig": {', '"HostConfig": {"Privileged": true}, "HostConfig": {', 1)
    status, _ = _ask(shared, "POST", "/v1.41/containers/create", twice.encode())
    assert status == 201  # the last value counts, and the engine gets only the checked body
    [container] = shared.containers(state="created")
    assert json.loads(docker("inspect", container))[0]["HostConfig"]["Privileged"] is False
    for body in (b"", b"{", b"[]", b'"x"', b"null", b"[" * 60000, b" " * 70000):
        assert _ask(shared, "POST", "/v1.41/containers/create", body)[0] == 403, body[:20]
    chunked = {"Transfer-Encoding": "chunked"}
    assert _ask(shared, "POST", "/v1.41/containers/create", b"0\r\n\r\n", **chunked)[0] == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/info"),
        ("GET", "/images/json"),
        ("POST", "/v1.41/images/create?fromImage=alpine"),
        ("POST", "/v1.41/build"),
        ("POST", "/v1.41/volumes/create"),
        ("POST", "/v1.41/networks/create"),
        ("GET", "/v1.41/networks"),
        ("GET", "/v1.41/networks/bridge"),
        ("GET", "/v1.41/networks/host"),
        ("POST", "/v1.41/containers/create?name=postgres"),
        ("POST", "/v1.41/containers/prune"),
        ("GET", "/v1.40/containers/json/../../info"),
        ("GET", "/v1.41/containers/json/../../info"),
        ("GET", "/v1.41/containers/%2e%2e/info"),
        ("GET", "//var/run"),
        ("POST", "/v1.41/session"),
        ("PUT", "/v1.41/containers/json"),
        ("HEAD", "/v1.41/containers/json"),
        ("CONNECT", "/v1.41/containers/json"),
        ("OPTIONS", "*"),
    ],
)
def test_proxy_refuses_every_other_call(shared, method, path):
    """These are calls that launching runs does not need."""
    assert _ask(shared, method, path)[0] == 403


def test_proxy_refuses_calls_for_other_containers(shared, postgres):
    """Another container cannot be inspected, started, signalled, removed, connected or listed."""
    strange = docker("inspect", "-f", "{{.Id}}", postgres.name)
    network = docker("network", "inspect", "-f", "{{.Id}}", f"{shared.name}_tools")
    of_strange = f"/v1.41/containers/{strange}"
    assert _ask(shared, "GET", f"{of_strange}/json")[0] == 403
    for call in ("start", "kill?signal=SIGKILL", "stop", "restart", "exec", "attach", "update", "rename?name=x"):
        assert _ask(shared, "POST", f"{of_strange}/{call}", {})[0] == 403, call
    for call in ("", "?force=1"):
        assert _ask(shared, "DELETE", f"{of_strange}{call}")[0] == 403
    for call in ("logs", "archive?path=/", "top", "export"):
        assert _ask(shared, "GET", f"{of_strange}/{call}")[0] == 403, call
    assert _ask(shared, "GET", f"/v1.41/containers/{postgres.name}/json")[0] == 403
    assert _ask(shared, "POST", f"/v1.41/networks/{network}/connect", {"Container": strange})[0] == 403
    filters = json.dumps({"label": [], "name": [postgres.name]})
    status, text = _ask(shared, "GET", f"/v1.41/containers/json?all=1&filters={filters}".replace(" ", ""))
    assert (status, json.loads(text)) == (200, [])
    assert docker("inspect", "-f", "{{.State.Running}}", postgres.name) == "true"


def test_proxy_restricts_calls_for_containers_of_runs(shared):
    """Only its own networks and two signals are allowed, and no command can be executed in it."""
    run_id = shared.launch("waiting")
    shared.wait_for_pid()
    [container] = shared.containers(run_id)
    connect = {"Container": container}
    assert _ask(shared, "POST", "/v1.41/networks/bridge/connect", connect)[0] == 403
    named = {**connect, "EndpointConfig": {"Aliases": ["postgres"]}}
    assert _ask(shared, "POST", f"/v1.41/networks/{shared.name}_tools/connect", named)[0] == 403
    for call in ("kill?signal=SIGSTOP", "kill", "exec", "update", "stop"):
        assert _ask(shared, "POST", f"/v1.41/containers/{container}/{call}", {})[0] == 403, call
    assert _ask(shared, "GET", f"/v1.41/containers/{container}/archive?path=/dagster")[0] == 403
    assert _ask(shared, "GET", f"/v1.41/containers/{container}/json")[0] == 200
    shared.release()
    assert shared.wait(run_id) == SUCCESS


def test_proxy_logs_changes_and_refusals(shared):
    """Each line has the status and the reason."""
    assert _ask(shared, "GET", "/info")[0] == 403
    assert shared.wait(shared.launch("quick")) == SUCCESS
    log = (shared.home.parent / "proxy.log").read_text()
    assert "GET /info: 403 Launching runs does not need this call." in log
    assert "POST /v1.41/containers/create: 201" in log
