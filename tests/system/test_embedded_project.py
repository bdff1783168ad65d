"""A whole embedded project: runs through the gateway, before and after a restart."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from bonseyes_dagster.client import Artifact, Project
from bonseyes_dagster.execution.launching.run_protocol import default_socket
from tests.other_user import as_other_user, connectable, needs_root, readable
from tests.system.embedded import Embedded, embedded
from tests.waiting import is_at_work, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project() -> Iterator[Embedded]:
    """Return the tiny project, which is up, in a folder that all users can enter."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        Path(folder).chmod(0o755)
        with embedded(Path(folder) / "project", with_dagster=True) as project:
            for name in STANDARD:
                (project.folder / f"{name}.py").write_text(
                    f"open({str(project.folder / 'ran')!r}, 'a').write('{name} ')\n"
                )
            project.up()
            yield project


# Modules of the standard library that services import, early or late.
STANDARD = (
    "random",
    "secrets",
    "uuid",
    "hmac",
    "html",
    "mimetypes",
    "zipfile",
    "gzip",
    "decimal",
    "statistics",
    "queue",
)


def _run(project: Embedded, name: str, **parameters: object) -> Artifact:
    files = {}
    for parameter in ("train", "test"):
        files[parameter] = project.folder.parent / f"{parameter}.bin"
        files[parameter].write_bytes(parameter.encode() * 10)
    return Project(project.url).container("tiny-one", "runs").create(name, parameters, files)


def test_every_service_answers_behind_one_port(project: Embedded) -> None:
    """Every service is healthy, and the gateway has a path for it."""
    status = project.status()
    names = {service["name"] for service in status["services"]}
    assert names >= {"tiny-one", "tiny-two", "load", "learn", "judge", "run-server", "dagster-daemon", "gateway"}
    assert {service["state"] for service in status["services"]} == {"healthy"}
    assert project.get("/dagster/server_info").json()["dagster_version"]
    assert project.get("/containers/tiny-one/task").json()["name"] == "length"
    assert {entry["name"] for entry in project.get("/pipelines").json()} == {"tiny-one", "tiny-two"}
    assert set(project.get("/containers").json()) >= {"load", "learn", "judge"}
    assert project.get("/containers/visualization/").status_code == 200


def test_status_names_the_containers_whose_code_changed(project: Embedded) -> None:
    """A container is listed while its files differ from the files that it has loaded."""
    assert project.status()["code_changed"] == []
    new = project.folder / "containers" / "learn" / "new.py"
    new.touch()
    try:
        until(lambda: project.status()["code_changed"] == ["learn"])
        # Each process of the dashboard asks the containers separately, so one may know of the change later.
        sentence = "The code of learn changed since it started; restart the container to use it.\n"
        until(lambda: sentence in project.call("status").stdout)
    finally:
        new.unlink()
    until(lambda: project.status()["code_changed"] == [])


def test_run_through_the_gateway_completes(project: Embedded) -> None:
    """Every step's artifact is in its container."""
    run = _run(project, "first")
    status = run.wait(120)
    assert status.phase == "completed", status
    assert {step.phase for step in status.steps or ()} == {"completed"}
    model = Project(project.url).container("learn").artifact("first_learn")
    assert model.read("model.txt") == b"short 50\n"


def test_no_service_runs_a_module_of_the_working_folder(project: Embedded) -> None:
    """By default, Python and uWSGI load a module of the working folder instead of the standard library's."""
    assert _run(project, "modules").wait(120).phase == "completed"
    ran = project.folder / "ran"
    assert not ran.exists(), ran.read_text()


def _sockets(project: Embedded, kind: str) -> set[Any]:
    """Return the ports or sockets at which the processes of a project listen."""
    found = [each for process in project.processes() for each in process.net_connections(kind)]
    if kind == "tcp":
        return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}
    return {each.laddr for each in found if each.laddr}


def test_only_the_gateway_has_a_port(project: Embedded) -> None:
    """Every user of the machine can connect to a port, but only the owner of the folder to a unix socket."""
    assert _sockets(project, "tcp") == {project.port}
    names = {Path(path).name for path in _sockets(project, "unix")}
    assert names >= {f"{name}.sock" for name in ("load", "tiny-one", "dashboard", "visualization", "dagster-webserver")}


@needs_root
def test_another_user_gets_nothing(project: Embedded) -> None:
    """No socket and no file of any service is open to other users."""
    paths = _sockets(project, "unix") | set(map(str, project.project.sockets.iterdir()))
    paths.add(str(default_socket(project.project.dagster_home)))
    assert len(connectable(paths)) >= 10
    assert as_other_user(lambda: connectable(paths)) == []
    assert as_other_user(lambda: readable([project.folder])), (
        "the project's folder must be open, or the next line proves nothing"
    )
    assert as_other_user(lambda: readable([project.project.state_folder])) == []
    # The only port is the gateway's. This gateway has no token.
    assert as_other_user(lambda: _status(project, "/", f"127.0.0.1:{project.port}")) == 403


def test_rebinding_page_gets_403(project: Embedded) -> None:
    """Browsers can connect to the gateway's port only, so the gateway must check Host."""
    for path in ("/", "/healthz", "/containers/load/artifacts", "/dagster/graphql?query={version}"):
        assert _status(project, path, "evil.example") == 403
    assert _status(project, "/healthz", f"127.0.0.1:{project.port}") == 200


def _status(project: Embedded, path: str, host: str) -> int:
    connection = HTTPConnection("127.0.0.1", project.port, timeout=20)
    connection.request("GET", path, headers={"Host": host, "X-Forwarded-Host": "127.0.0.1:8000"})
    with contextlib.closing(connection):
        return connection.getresponse().status


# The parameters differ: with equal ones, the second run would reuse the steps of the first run.
@pytest.mark.parametrize(("how", "epochs"), [("down", 100), ("kill -9", 101)])
def test_run_is_resumed_after_the_project_was_down(project: Embedded, how: str, epochs: int) -> None:
    """`down` or a kill ends the project in the middle of a step. The next start resumes the run."""
    name = how.replace(" ", "")
    run = _run(project, name, epochs=epochs, pause=0.1)
    until(lambda: is_at_work(Project(project.url), "learn", f"{name}_learn"))
    if how == "down":
        assert project.call("down").returncode == 0
    else:
        os.kill(project.status()["pid"], signal.SIGKILL)
    project.up()
    status = run.wait(240)
    assert status.phase == "completed", (status, project.logs())
    assert {step.name: step.phase for step in status.steps or ()}["learn"] == "completed"


def test_cancelled_run_with_a_hanging_process_cancels_its_artifact(project: Embedded) -> None:
    """The run server kills the process. The artifact that the process waited for must not go on."""
    run = _run(project, "hanging", epochs=1000, pause=0.1)
    until(lambda: is_at_work(Project(project.url), "learn", "hanging_learn"))
    run_id = run.status().run_id
    process = json.loads((project.project.dagster_home / "run_server" / "runs" / f"{run_id}.json").read_bytes())
    os.kill(process["pid"], signal.SIGSTOP)
    run.cancel()
    assert run.wait(60).phase == "cancelled"
    learn = Project(project.url).container("learn").artifact("hanging_learn")
    assert learn.wait(60).phase == "cancelled"


def test_definitions_that_cannot_be_loaded_are_refused(tmp_path: Path) -> None:
    """`up` prints the error of the import, and leaves no process running."""
    with embedded(tmp_path / "broken", with_dagster=True) as broken:
        file = broken.folder / "definitions.py"
        file.write_text("import os\nimport nonsense_that_is_not_there\n")
        done = broken.call("up", "--detach")
        assert done.returncode == 2
        assert done.stderr == (
            f"bonseyes: {file} cannot be loaded: {file}:2: ModuleNotFoundError: No module named "
            "'nonsense_that_is_not_there': import nonsense_that_is_not_there\n"
        )
        assert broken.processes() == []


def test_broken_tool_is_named_and_loads_after_a_correction(tmp_path: Path) -> None:
    """`up` does not wait for a tool that cannot become healthy. All other services start."""
    with embedded(tmp_path / "broken", with_dagster=False) as broken:
        (name, folder), *_ = broken.project.tools().items()
        file = folder / "broken.py"
        file.write_text("import os\ndef create(artifact:\n    pass\n")
        description = folder / "tool.yml"
        text = re.sub(r"entry_point: *\S+", "entry_point: broken:create", description.read_text())
        description.write_text(text)
        done = broken.call("up", "--detach")
        assert done.returncode == 5
        assert f"{name}: The tool's code cannot be loaded: {file}:2: SyntaxError: '(' was never closed" in done.stderr
        states = {each["name"]: each["state"] for each in broken.status()["services"]}
        assert states.pop(name) == "broken" and set(states.values()) == {"healthy"}
        file.write_text("def create(artifact, **parameters):\n    pass\n")
        until(lambda: broken.service(name)["state"] == "healthy", 30)
