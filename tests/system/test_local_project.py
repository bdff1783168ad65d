"""A whole project with its pipelines under one supervisor: run through the gateway, and run on across its end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from bonseyes_dagster.client import Artifact, Project
from tests.system.embedded import Embedded, embedded
from tests.waiting import is_at_work, until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The tiny project, up."""
    with embedded(tmp_path_factory.mktemp("embedded") / "project", with_dagster=True) as project:
        project.up()
        yield project


def _run(project: Embedded, name: str, **parameters: object) -> Artifact:
    files = {}
    for parameter in ("train", "test"):
        files[parameter] = project.folder.parent / f"{parameter}.bin"
        files[parameter].write_bytes(parameter.encode() * 10)
    return Project(project.url).container("tiny-one", "runs").create(name, parameters, files)


def test_everything_answers_behind_one_port(project: Embedded) -> None:
    """Every service is healthy, and each has its place at the gateway."""
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
    """As long as their files differ from those that they loaded."""
    assert project.status()["code_changed"] == []
    new = project.folder / "containers" / "learn" / "new.py"
    new.touch()
    try:
        until(lambda: project.status()["code_changed"] == ["learn"])
        said = project.call("status").stdout
    finally:
        new.unlink()
    assert "learn: code changed since start; restart the container to use it.\n" in said
    until(lambda: project.status()["code_changed"] == [])


def test_a_run_goes_through_the_gateway(project: Embedded) -> None:
    """From archives to its provenance, with every step's artifact in its container."""
    run = _run(project, "first")
    status = run.wait(120)
    assert status.phase == "completed", status
    assert {step.phase for step in status.steps or ()} == {"completed"}
    model = Project(project.url).container("learn").artifact("first_learn")
    assert model.read("model.txt") == b"short 50\n"


# A step with the same parameters would be taken over from the other run, in no time.
def test_dagsters_own_port_is_not_for_pages(project: Embedded) -> None:
    """What a browser asks past the gateway is refused: a page of any site could have it ask for a mutation."""
    process = psutil.Process(project.service("dagster-webserver")["pid"])
    (port,) = {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    url = f"http://127.0.0.1:{port}/dagster/graphql?query={{version}}"
    assert requests.get(url, timeout=30).json()["data"]["version"]
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert requests.get(url, headers=headers, timeout=30).status_code == 403
    assert project.get("/dagster/server_info", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(("how", "epochs"), [("down", 100), ("kill -9", 101)])
def test_a_run_is_taken_up_again_after_the_project_was_down(project: Embedded, how: str, epochs: int) -> None:
    """Ended in the middle of a step, politely or not, the run is resumed by the next start and completes."""
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


def test_no_tool_works_for_a_dead_run(project: Embedded) -> None:
    """A run's process that does not listen is killed when it is cancelled; what it had ordered is taken back for it."""
    run = _run(project, "deaf", epochs=1000, pause=0.1)
    until(lambda: is_at_work(Project(project.url), "learn", "deaf_learn"))
    run_id = run.status().run_id
    record = json.loads((project.project.dagster_home / "run_server" / "runs" / f"{run_id}.json").read_bytes())
    os.kill(record["pid"], signal.SIGSTOP)
    run.cancel()
    assert run.wait(60).phase == "cancelled"
    learn = Project(project.url).container("learn").artifact("deaf_learn")
    assert learn.wait(60).phase == "cancelled"


def test_definitions_that_cannot_be_loaded_are_refused(tmp_path: Path) -> None:
    """With their own error; nothing is left running."""
    with embedded(tmp_path / "broken", with_dagster=True) as broken:
        (broken.folder / "definitions.py").write_text("import nonsense_that_is_not_there\n")
        done = broken.call("up", "--detach")
        assert done.returncode == 2
        assert "No module named 'nonsense_that_is_not_there'" in done.stderr
        assert broken.processes() == []
