"""`bonseyes up`, `down`, `status`, `logs` on a project of tools alone: what runs, and that nothing stays behind."""

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

pytestmark = pytest.mark.timeout(300)
SERVICES = {"gateway", "dashboard", "visualization", "load"}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Embedded]:
    """A project that is down."""
    with embedded(tmp_path / "project") as project:
        yield project


def test_a_project_comes_up_whole_once_and_goes_down_whole(project: Embedded) -> None:
    """Healthy when `up` returns, and free of the shell's secrets; a second changes nothing; `down` ends all of it."""
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


def test_what_crashes_is_started_again(project: Embedded) -> None:
    """Killed hard, a container comes back under its address with what it had; its restart is counted."""
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


def test_a_killed_supervisor_leaves_nothing_for_long(project: Embedded) -> None:
    """Its guard ends all of it, also what a service hid in a session of its own; the next `up` works."""
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


def test_what_hides_from_its_supervisor_is_found(project: Embedded) -> None:
    """Also what an earlier supervisor left whose guard was killed with it: `down` ends it, and so does `up`."""
    for end in (project.up, lambda: project.call("down")):
        marked = {**os.environ, "BONSEYES_SUPERVISED": f"{project.project.state_folder}#of another time"}
        hidden = psutil.Popen(["sleep", "600"], env=marked, start_new_session=True)
        end()
        assert hidden.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_foreground_ends_everything(project: Embedded, number: signal.Signals) -> None:
    """Ctrl-C, a kill, a closed terminal: at any time, also while it starts."""
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


def test_a_taken_port_is_refused_before_anything_starts(project: Embedded) -> None:
    """In one sentence, with its holder."""
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
    """Shown by the port that `up` finds taken."""
    (project.folder / ".env").write_text(f"BONSEYES_PORT={project.port}\n")
    environ = {name: value for name, value in project.environ().items() if name != "BONSEYES_PORT"}
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", project.port))
        holder.listen()
        argv = [BONSEYES, "up", "--detach"]
        done = subprocess.run(argv, cwd=project.folder, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, f"Port {project.port}" in done.stderr) == (2, True)


def test_an_open_bind_needs_a_token(project: Embedded) -> None:
    """The refusal names the variable; with a token every route wants it."""
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


def test_a_wrong_tool_is_refused_before_anything_starts(project: Embedded) -> None:
    """Two tools of one name, say."""
    twin = project.folder / "components" / "c" / "containers" / "load"
    twin.mkdir(parents=True)
    (twin / "tool.yml").write_text((project.folder / "containers" / "load" / "tool.yml").read_text())
    done = project.call("up", "--detach")
    assert (done.returncode, "Two tools are called 'load'" in done.stderr) == (2, True)
    assert project.processes() == []


def test_two_projects_stand_side_by_side(project: Embedded, tmp_path: Path) -> None:
    """With a port each; the end of one is not the end of the other."""
    with embedded(tmp_path / "other") as other:
        project.up()
        other.up()
        assert {project.get("/healthz").status_code, other.get("/healthz").status_code} == {200}
        assert project.call("down").returncode == 0
        assert other.get("/containers/load/").status_code == 200
        assert other.status()["services"][0]["state"] == "healthy"


def test_a_tool_is_tried_alone(project: Embedded) -> None:
    """`bonseyes tool run FOLDER`: one container in the foreground, ended by a signal with all it started."""
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


def test_programs_are_told_in_json(project: Embedded) -> None:
    """One document and nothing else, when everything is healthy: detached, in the foreground, and of a running one."""
    foreground = project.start("up", "--json")
    assert foreground.stdout is not None
    record = json.loads(foreground.stdout.readline())
    assert {service["state"] for service in record["services"]} == {"healthy"}
    assert json.loads(project.call("up", "--json").stdout) == record
    foreground.send_signal(signal.SIGINT)
    assert foreground.communicate(timeout=60)[0] == ""
    detached = json.loads(project.call("up", "--detach", "--json").stdout)
    assert detached["url"] == project.url


def test_who_asks_twice_waits_no_more(project: Embedded) -> None:
    """The first Ctrl-C lets services end in their time; the second kills them."""
    project.up()
    supervisor = psutil.Process(project.status()["pid"])
    stuck = psutil.Process(project.service("load")["pid"])
    stuck.suspend()  # it will not hear SIGTERM
    supervisor.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert supervisor.is_running()
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(10)
    assert not stuck.is_running()
    assert project.processes() == []
