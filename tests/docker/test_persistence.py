"""`docker compose down` and `up` in the middle of a run: all data is kept, and unfinished work goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.errors import BonseyesError
from tests.docker.running_project import RunningProject
from tests.waiting import is_at_work, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture
def project(built: None, tmp_path: Path) -> Any:
    """A separate project, because the tests stop it."""
    with RunningProject(tmp_path / "project") as project:
        project.up()
        yield project


def test_runs_and_artifacts_survive_compose_down_and_up(project: RunningProject, digits: dict[str, Path]) -> None:
    """Completed runs and artifacts are unchanged; the unfinished run and the queued artifact complete."""
    first = project.runs("digits-mlp").create("first", {"epochs": 1}, digits)
    assert first.wait(300).phase == "completed"
    under_way = project.runs().create("second", {"epochs": 30}, digits)
    until(lambda: is_at_work(project.client, "training", "second_train"), 300)
    parameters = {"training-set": "training-set/first_split", "epochs": 1}
    queued = project.client.container("training").create("waiting", parameters)
    assert queued.status().phase == "queued"
    before, report = project.made(), first.read("run.json")

    project.compose("down")
    project.compose("up", "--detach", "--no-build")

    until(lambda: _is_there(project), 300)
    assert project.runs("digits-mlp").artifact("first").read("run.json") == report
    status = under_way.wait(300)
    assert status.phase == "completed", (status, b"".join(under_way.iter_log()).decode()[-4000:])
    assert queued.wait(300).phase == "completed"
    now = project.made()
    assert {key: now[key] for key in before} == before


def test_run_survives_bonseyes_down_and_up(project: RunningProject, digits: dict[str, Path]) -> None:
    """The services that launch runs stop first, so that no step of a run loses its tool."""
    run = project.runs().create("only", {"epochs": 30}, digits)
    until(lambda: is_at_work(project.client, "training", "only_train"), 300)
    done = project.call("down")
    assert done.returncode == 0, done.stderr
    assert project.compose("ps", "--all", "--quiet") == ""
    assert project.call("status").returncode == 5
    project.up()
    status = run.wait(300)
    assert status.phase == "completed", status
    # No step had to try again.
    assert "The step will be retried" not in b"".join(run.iter_log()).decode()


def _is_there(project: RunningProject) -> bool:
    try:
        return project.call("status").returncode == 0
    except BonseyesError:
        return False
