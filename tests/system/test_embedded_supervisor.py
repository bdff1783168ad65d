"""`bonseyes up`, `down`, `status` and `logs` for an embedded project with tools only; no process stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.embedded import BONSEYES, Embedded, embedded
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SERVICES = {"gateway", "dashboard", "visualization", "load"}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Embedded]:
    """A project that is down."""
    with embedded(tmp_path / "project") as project:
        yield project


def test_up_starts_all_services_once_and_down_stops_all(project: Embedded) -> None:
    """Services are healthy when `up` returns, and have no secrets of the shell; a second `up` changes nothing."""
    shell = {"AWS_SECRET_ACCESS_KEY": "x", "UWSGI_INI": "/nowhere", "http_proxy": "http://127.0.0.1:1"}
    project.up(**shell, WANDB_API_KEY="passed", BONSEYES_PASS_ENV="WANDB_*")
    for process in project.processes():
        assert not shell.keys() & process.environ().keys()
        assert process.environ()["WANDB_API_KEY"] == "passed"
    assert project.get("/healthz").status_code == 200
    assert project.get("/containers/load/").json()["name"] == "load"
    assert project.get("/containers/visualization/").status_code == 200
    status = project.status()
    assert {service["name"] for service in status["services"]} == SERVICES
    assert {service["state"] for service in status["services"]} == {"healthy"}

    again = project.call("up", "--detach")
    assert (again.returncode, "already up" in again.stdout, project.url in again.stdout) == (0, True, True)
    assert project.status() == status
    foreground = project.call("up")
    assert (foreground.returncode, "already up" in foreground.stdout) == (0, True)

    shown = project.call("status")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) == len(SERVICES) + 1
    assert "spawned uWSGI" in project.call("logs", "load").stdout
    assert project.call("logs", "nothing").returncode == 3

    down = project.call("down")
    assert (down.returncode, "is down" in down.stdout) == (0, True)
    assert project.processes() == []
    assert not list(Path(project.folder / ".bonseyes").glob("*.json"))
    assert (project.folder / ".bonseyes" / "volumes" / "load").is_dir()
    assert project.call("status").returncode == 5
    again = project.call("down")
    assert (again.returncode, "was not up" in again.stdout) == (0, True)


def test_crashed_service_is_restarted(project: Embedded) -> None:
    """A killed container has the same address and data after its restart, and the restart is counted."""
    project.up()
    pid, address = project.service("load")["pid"], project.project.addresses.read_text()
    os.kill(pid, signal.SIGKILL)
    until(lambda: project.service("load")["restarts"] == 1)
    until(lambda: project.service("load")["state"] == "healthy")
    assert project.service("load")["pid"] != pid
    assert project.project.addresses.read_text() == address
    assert project.get("/containers/load/healthz").status_code == 200
    os.kill(project.service("gateway")["pid"], signal.SIGKILL)
    until(lambda: project.service("gateway")["restarts"] == 1)
    until(lambda: project.service("gateway")["state"] == "healthy")
    assert project.get("/healthz").status_code == 200
    assert "load ended with signal 9" in project.call("logs", "load", "-n", "500").stdout


def test_guard_ends_all_processes_of_a_killed_supervisor(project: Embedded) -> None:
    """It also ends processes in their own session; the next `up` works."""
    project.up()
    marked = psutil.Process(project.service("load")["pid"]).environ()
    hidden = psutil.Popen(["sleep", "600"], env=marked, start_new_session=True)
    before = project.processes()
    supervisor = project.status()["pid"]
    os.kill(supervisor, signal.SIGKILL)
    assert hidden.wait(10) == -signal.SIGKILL
    _, alive = psutil.wait_procs(before, timeout=10)
    assert alive == []
    assert project.call("status").returncode == 5
    project.up()
    assert project.status()["pid"] != supervisor


def test_up_and_down_end_processes_of_an_earlier_supervisor(project: Embedded) -> None:
    """Such processes stay when a supervisor and its guard are killed together."""
    for end in (project.up, lambda: project.call("down")):
        marked = {**os.environ, "BONSEYES_SUPERVISED": f"{project.project.state_folder}#earlier-supervisor"}
        hidden = psutil.Popen(["sleep", "600"], env=marked, start_new_session=True)
        end()
        assert hidden.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_in_the_foreground_stops_the_project(project: Embedded, number: signal.Signals) -> None:
    """Ctrl-C, a kill and a closed terminal stop it at any time, also during its start."""
    running = project.start("up")
    until(lambda: project.project.state_file.exists())
    if number is not signal.SIGTERM:
        until(lambda: project.call("status").returncode == 0)
    processes = project.processes()
    running.send_signal(number)
    output = running.communicate(timeout=60)[0]
    assert running.returncode in (0, 130), output
    assert "Traceback" not in output
    assert [process for process in processes if process.is_running()] == []
    assert project.processes() == []


def test_port_in_use_is_refused_before_anything_starts(project: Embedded) -> None:
    """The error is one sentence that names the process."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", project.port))
        holder.listen()
        for arguments in (["up"], ["up", "--detach"]):
            done = project.call(*arguments)
            assert done.returncode == 2
            assert f"Port {project.port}" in done.stderr
            assert f"process {os.getpid()}" in done.stderr
            assert "Traceback" not in done.stderr
    assert project.processes() == []


def test_env_file_sets_what_the_shell_does_not(project: Embedded) -> None:
    """The port in the file is in use, so `up` reports it."""
    (project.folder / ".env").write_text(f"BONSEYES_PORT={project.port}\n")
    environ = {name: value for name, value in project.environ().items() if name != "BONSEYES_PORT"}
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", project.port))
        holder.listen()
        argv = [BONSEYES, "up", "--detach"]
        done = subprocess.run(argv, cwd=project.folder, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, f"Port {project.port}" in done.stderr) == (2, True)


def test_open_bind_needs_a_token(project: Embedded) -> None:
    """The error names the variable; with a token, every route needs it."""
    done = project.call("up", "--detach", BONSEYES_HOST="0.0.0.0")
    assert (done.returncode, "BONSEYES_TOKEN" in done.stderr) == (2, True)
    assert project.processes() == []
    project.up(BONSEYES_TOKEN="a token of some length")
    assert project.get("/containers/load/").status_code == 401
    headers = {"Authorization": "Bearer a token of some length"}
    assert project.get("/containers/load/", headers=headers).status_code == 200
    assert project.status()["services"][0]["state"] == "healthy"
    for process in project.processes():
        if process.environ().get("BONSEYES_CONTAINER") not in (None, "gateway"):
            assert "BONSEYES_TOKEN" not in process.environ()


def test_two_tools_of_one_name_are_refused_before_anything_starts(project: Embedded) -> None:
    """The name of a tool is the name of its container."""
    twin = project.folder / "components" / "c" / "containers" / "load"
    twin.mkdir(parents=True)
    (twin / "tool.yml").write_text((project.folder / "containers" / "load" / "tool.yml").read_text())
    done = project.call("up", "--detach")
    assert (done.returncode, "Two tools have the name 'load'" in done.stderr) == (2, True)
    assert project.processes() == []


def test_two_projects_run_side_by_side(project: Embedded, tmp_path: Path) -> None:
    """Each has its own port; the end of one must not stop the other."""
    with embedded(tmp_path / "other") as other:
        project.up()
        other.up()
        assert {project.get("/healthz").status_code, other.get("/healthz").status_code} == {200}
        assert project.call("down").returncode == 0
        assert other.get("/containers/load/").status_code == 200
        assert other.status()["services"][0]["state"] == "healthy"


def test_tool_run_serves_one_tool(project: Embedded) -> None:
    """It is one container in the foreground; a signal ends it and all its processes."""
    running = project.start("tool", "run", "containers/load", "--port", str(project.port))
    until(lambda: _answers(project, "/healthz"))
    assert project.get("/").json()["name"] == "load"
    assert (project.folder / ".bonseyes" / "tools" / "load").is_dir()
    children = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
    assert [child for child in children if child.is_running()] == []


def _answers(project: Embedded, path: str) -> bool:
    try:
        return project.get(path).status_code == 200
    except OSError:
        return False


def test_up_with_json_prints_one_document(project: Embedded) -> None:
    """All services are healthy then: in the background, in the foreground, and when it is already up."""
    foreground = project.start("up", "--json")
    assert foreground.stdout is not None
    state = json.loads(foreground.stdout.readline())
    assert {service["state"] for service in state["services"]} == {"healthy"}
    assert json.loads(project.call("up", "--json").stdout) == state
    foreground.send_signal(signal.SIGINT)
    assert foreground.communicate(timeout=60)[0] == ""
    background = json.loads(project.call("up", "--detach", "--json").stdout)
    assert background["url"] == project.url


def test_second_signal_kills_all_services(project: Embedded) -> None:
    """The first Ctrl-C gives services time to end; the second kills them."""
    project.up()
    supervisor = psutil.Process(project.status()["pid"])
    stuck = psutil.Process(project.service("load")["pid"])
    stuck.suspend()  # it cannot handle SIGTERM
    supervisor.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert supervisor.is_running()
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(10)
    assert not stuck.is_running()
    assert project.processes() == []
