"""A project is backed up in the middle of a run, and restored elsewhere: all data is kept, and the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from bonseyes_dagster.client import Project
from tests.system.embedded import embedded
from tests.waiting import is_at_work, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONTAINERS = ("load", "learn", "judge")


def _digests(url: str, names: list[str]) -> dict[str, Any]:
    """Return digest, time of the end, files and log of each completed artifact of these runs."""
    found = {}
    for container in CONTAINERS:
        for status in requests.get(f"{url}/containers/{container}/artifacts?detail=1", timeout=30).json():
            if status["name"].startswith(tuple(names)) and status["phase"] == "completed":
                path = f"{url}/containers/{container}/artifacts/{status['name']}"
                files = requests.get(f"{path}/files", timeout=30).json()
                log = requests.get(f"{path}/log", timeout=30).text
                found[container, status["name"]] = (status["digest"], status["finished"], files, log)
    return found


def test_restored_project_continues_runs_and_queue(tmp_path: Path) -> None:
    """Finished runs are unchanged to the last byte; the unfinished run and the queued artifact complete."""
    archives = {name: tmp_path / f"{name}.bin" for name in ("train", "test")}
    for path in archives.values():
        path.write_bytes(path.name.encode() * 10)
    with embedded(tmp_path / "old" / "project", with_dagster=True) as old:
        old.up()
        runs = Project(old.url).container("tiny-one", "runs")
        assert runs.create("first", {}, archives).wait(120).phase == "completed"
        runs.create("second", {"epochs": 60, "pause": 0.1}, archives)
        until(lambda: is_at_work(Project(old.url), "learn", "second_learn"))
        queued = Project(old.url).container("learn").create("waiting", {"dataset": "load/first_load_train"})
        assert queued.status().phase == "queued"
        made = _digests(old.url, ["first", "second"])
        assert len(made) >= 6
        assert old.call("down").returncode == 0
        done = old.call("backup", str(tmp_path / "saved"))
        assert done.returncode == 0, done.stderr
    with embedded(tmp_path / "new" / "project", with_dagster=True) as new:
        done = new.call("restore", str(tmp_path / "saved"))
        assert done.returncode == 0, done.stderr
        new.up()
        runs = Project(new.url).container("tiny-one", "runs")
        assert runs.artifact("first").status().phase == "completed"
        assert {step.phase for step in runs.artifact("first").status().steps or ()} == {"completed"}
        status = runs.artifact("second").wait(240)
        assert status.phase == "completed", (status, new.logs())
        assert Project(new.url).container("learn").artifact("waiting").wait(60).phase == "completed"
        now = _digests(new.url, ["first", "second"])
        assert {key: now[key] for key in made} == made
