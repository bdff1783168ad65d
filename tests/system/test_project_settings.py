"""A project with its own settings, an inbox, and definitions that change while it is up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from bonseyes_dagster.client import Container, Project
from tests.system.embedded import Embedded, embedded
from tests.waiting import is_at_work, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RELOAD = """mutation { reloadRepositoryLocation(repositoryLocationName: "definitions") {
    __typename ... on WorkspaceLocationEntry { loadStatus locationOrLoadError { __typename } } } }"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The tiny project, up, in a folder with an unusual name, with an inbox, and a limit of one live run."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "inbox").mkdir()
    # Each of these characters has a meaning in URLs, SQLite, uWSGI or shells.
    with embedded(folder / "it's 50%41 #1? é:x", with_dagster=True) as project:
        (project.folder / "dagster.yaml").write_text("concurrency: {runs: {max_concurrent_runs: 1}}\n")
        project.up(BONSEYES_INBOX=str(folder / "inbox"))
        yield project


@pytest.fixture
def pipeline(project: Embedded) -> Container:
    """The pipeline's container."""
    return Project(project.url).container("tiny-one", "runs")


def place(project: Embedded, name: str) -> None:
    """Put a set into the inbox."""
    folder = project.folder.parent / "inbox" / name
    folder.mkdir()
    for parameter in ("train", "test"):
        (folder / f"{parameter}.gz").write_bytes(f"{name} {parameter}".encode())
        (folder / f"{parameter}.gz.sha256").write_text("0")


def archives(project: Embedded) -> dict[str, Path]:
    """Return archives for a run that a test creates."""
    files = {name: project.folder.parent / f"{name}.gz" for name in ("train", "test")}
    for name, file in files.items():
        file.write_bytes(name.encode())
    return files


def test_wrong_settings_are_refused_at_up(tmp_path: Path) -> None:
    """No process is left running, and the error names file and key."""
    with embedded(tmp_path / "project", with_dagster=True) as project:
        (project.folder / "dagster.yaml").write_text("run_retries: {max_retries: many}\n")
        done = project.call("up", "--detach")
        assert done.returncode != 0
        assert "dagster.yaml: Invalid scalar at path root:run_retries:max_retries" in done.stdout + done.stderr


def test_inbox_starts_one_run_per_set_and_none_after_its_deletion(project: Embedded, pipeline: Container) -> None:
    """The second set proves that the inbox was read after the deletion."""
    place(project, "monday")
    until(lambda: "monday" in pipeline.names())
    assert pipeline.artifact("monday").wait(120).phase == "completed"
    requests.delete(f"{project.url}/containers/tiny-one/runs/monday", timeout=60).raise_for_status()
    place(project, "tuesday")
    until(lambda: "tuesday" in pipeline.names())
    assert pipeline.artifact("tuesday").wait(120).phase == "completed"
    assert pipeline.names() == ["tuesday"]


def test_run_beyond_the_limit_waits_with_a_reason(project: Embedded, pipeline: Container) -> None:
    """It can be cancelled and deleted while it waits; the next one starts when the live run ends."""
    files = archives(project)
    live = pipeline.create("live", {"epochs": 1000, "pause": 0.1}, files)
    until(lambda: is_at_work(Project(project.url), "learn", "live_learn"))
    cancelled, queued = (pipeline.create(name, {}, files) for name in ("cancelled", "queued"))
    status = queued.status()
    assert (status.phase, status.position) == ("queued", 2)
    assert "1 runs are live, and 1 may be at once" in str(status.reason)
    cancelled.cancel()
    assert cancelled.status().phase == "cancelled"
    cancelled.delete()
    assert queued.status().position == 1
    live.cancel()
    assert queued.wait(120).phase == "completed"


def test_reload_updates_all_services_to_the_edited_definitions(project: Embedded, pipeline: Container) -> None:
    """Dagster's UI, the pipeline's container and the run agree."""
    file = project.folder / "definitions.py"
    edited = file.read_text().replace('to="learn.epochs", default=3', 'to="learn.epochs", default=4')
    assert edited != file.read_text()
    file.write_text(edited)
    answer = requests.post(f"{project.url}/dagster/graphql", json={"query": RELOAD}, timeout=120).json()
    assert answer["data"]["reloadRepositoryLocation"]["loadStatus"] == "LOADED"
    until(lambda: {each.name: each.default for each in pipeline.describe().parameters}["epochs"] == 4)
    files = archives(project)
    run = pipeline.create("reloaded", {}, files)
    assert run.wait(120).phase == "completed"
    learnt = project.get("/containers/learn/artifacts/reloaded_learn/input-parameters").json()
    assert learnt["epochs"] == 4
    assert project.service("code-server")["restarts"] == 0
