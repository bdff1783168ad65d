"""A docker project is backed up in the middle of a run, and restored as another project that finishes the run."""

from __future__ import annotations

import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docker.running_project import TOOLS, RunningProject
from tests.waiting import is_at_work, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def test_restored_project_continues_runs_and_queue(built: None, tmp_path: Path, digits: dict[str, Path]) -> None:
    """Finished runs are unchanged in the new volumes and database; the unfinished run and the queue go on."""
    saved = tmp_path / "saved"
    with RunningProject(tmp_path / "old") as old:
        old.up()
        first = old.client.container("digits-mlp", "runs").create("first", {"epochs": 2}, digits)
        assert first.wait(120).phase == "completed"
        old.client.container("digits-cnn", "runs").create("second", {"epochs": 40}, digits)
        until(lambda: is_at_work(old.client, "training", "second_train"))
        parameters = {"training-set": "training-set/first_split", "epochs": 1}
        waiting = old.client.container("training").create("waiting", parameters)
        assert waiting.status().phase == "queued"
        provenance = first.read("run.json")
        made = old.made()
        assert len(made) >= 9 + 6
        refused = old.call("backup", str(saved))
        assert (refused.returncode, saved.exists()) == (2, False), refused.stderr
        assert old.call("down").returncode == 0
        done = old.call("backup", str(saved))
        assert done.returncode == 0, done.stderr
        assert json.loads((saved / "manifest.json").read_bytes())["versions"]["postgres"].startswith("15.")
        _check_backup_fails_if_compose_starts_the_project(old, tmp_path / "spoilt")
    _check_no_secret(saved)
    with RunningProject(tmp_path / "new") as new:
        done = new.call("restore", str(saved))
        assert done.returncode == 0, done.stderr
        assert new.call("restore", str(saved)).returncode == 4
        new.up()
        runs = new.client.container("digits-mlp", "runs")
        assert runs.artifact("first").status().phase == "completed"
        assert runs.artifact("first").read("run.json") == provenance
        status = new.client.container("digits-cnn", "runs").artifact("second").wait(300)
        assert status.phase == "completed", status
        assert new.client.container("training").artifact("waiting").wait(120).phase == "completed"
        now = new.made()
        assert {key: now[key] for key in made} == made


def _check_backup_fails_if_compose_starts_the_project(project: RunningProject, folder: Path) -> None:
    """Check that `bonseyes` starts nothing during a backup; if Compose does, the backup fails."""
    with ThreadPoolExecutor() as pool:
        backup = pool.submit(project.call, "backup", str(folder))
        until(folder.with_name(f".{folder.name}.partial").exists)
        project.compose("up", "--detach", "--no-build", "--no-deps", "training")
        assert project.call("up", "--docker", "--detach").returncode == 5
        assert backup.result().returncode == 2
    assert not list(folder.parent.glob(f"*{folder.name}*"))
    assert project.inspect("training")["State"]["Running"]


def _check_no_secret(saved: Path) -> None:
    """Check that the backup does not hold the database's password."""
    parts = {part["file"] for part in json.loads((saved / "manifest.json").read_bytes())["parts"]}
    assert parts == {f"volumes/{name}.tar" for name in (*TOOLS, "dashboard", "dagster-home")} | {"postgres.dump"}
    with tarfile.open(saved / "volumes" / "dagster-home.tar") as archive:
        assert "./dagster.yaml" not in archive.getnames()
        assert "./workspace.yaml" in archive.getnames()
