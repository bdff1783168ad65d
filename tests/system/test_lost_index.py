"""A real container whose index is lost, damaged or older than its folders: it keeps every artifact and reports it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from bonseyes_dagster.client import Artifact
from tests.contract.tools.server import ToolServer, tool_server
from tests.waiting import until

pytestmark = pytest.mark.slow

_INDEX = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ToolServer]:
    """Start a container with two completed artifacts and a failed one."""
    with tool_server("probe", tmp_path / "volume") as started:
        made(started, "one", "two")
        started.container.create("failed", {"act": "raise", "text": "Because."}).wait(timeout_s=60)
        yield started


def made(server: ToolServer, *names: str) -> None:
    """Make completed artifacts with these names."""
    for name in names:
        server.container.create(name, {"act": "write", "text": name}, idempotency_key=name).wait(timeout_s=60)


def check(server: ToolServer, *names: str) -> None:
    """Check that the artifacts have their data and digest, and that their names and keys are taken."""
    for name in names:
        artifact = server.container.artifact(name)
        assert artifact.status().phase == "completed"
        assert artifact.read("real") == name.encode()
        assert artifact.manifest().digest == artifact.status().digest
        again = server.container.create(name, {"act": "write", "text": name}, idempotency_key=name)
        assert again.status().created == artifact.status().created


def waiting(server: ToolServer) -> list[Artifact]:
    """Start one artifact, and queue two with an upload."""
    first = server.container.create("running", {"act": "sleep", "seconds": 60})
    until(lambda: first.status().phase == "running")
    upload = server.volume.with_name("upload")
    upload.write_bytes(b"precious")
    return [server.container.create(f"waiting{number}", {"act": "write"}, {"some-file": upload}) for number in (1, 2)]


def lose(server: ToolServer) -> None:
    """Remove the index."""
    for name in _INDEX:
        (server.volume / name).unlink(missing_ok=True)


@pytest.mark.parametrize("damage", ["lost", "empty", "zeroed", "older"])
def test_start_with_a_damaged_index_serves_all_completed_artifacts(
    server: ToolServer, tmp_path: Path, damage: str
) -> None:
    """Artifacts of the queue are made, or their uploads are set aside."""
    server.stop()
    shutil.copytree(server.volume, tmp_path / "backup")
    server.start()
    made(server, "three")
    queue = waiting(server)
    server.kill()
    if damage == "zeroed":
        with (server.volume / "index.sqlite").open("r+b") as file:
            file.write(bytes(4096))
        (server.volume / "index.sqlite-wal").unlink()
    else:
        lose(server)
    if damage == "empty":
        (server.volume / "index.sqlite").touch()
    elif damage == "older":
        shutil.copyfile(tmp_path / "backup/index.sqlite", server.volume / "index.sqlite")
    server.start()
    check(server, "one", "two", "three")
    assert server.container.names()[:4] == ["one", "two", "failed", "three"]
    assert server.container.artifact("failed").status().phase == "failed"
    assert "Because." in str(server.container.artifact("failed").status().reason)
    there = server.container.names()
    for artifact in queue:
        if artifact.name in there:
            assert artifact.wait(timeout_s=60).phase == "completed"
    missing = [artifact for artifact in queue if artifact.name not in there]
    uploads = "lost+found/*/*/inputs/some-file/upload"
    until(lambda: len([*server.volume.glob(uploads)]) == len(missing))
    assert all(path.read_bytes() == b"precious" for path in server.volume.glob(uploads))
    ready = requests.get(f"{server.url}/healthz", timeout=30).json()
    assert ready["status"] == "ready"
    assert len(ready.get("notices", [])) == (damage != "older")
    assert ("index of artifacts is older" if damage == "older" else "it is rebuilt") in server.log.read_text()
    made(server, "four")


def test_index_removed_while_the_container_runs_is_rebuilt(server: ToolServer) -> None:
    """The worker finds it missing and ends, the next worker rebuilds it, and the servers use the new one."""
    lose(server)
    until(lambda: requests.get(f"{server.url}/artifacts", timeout=30).status_code == 200)
    check(server, "one", "two")
    made(server, "three")
    server.kill()
    server.start()
    check(server, "one", "two", "three")


def test_damaged_data_gives_404_with_the_reason(server: ToolServer) -> None:
    """A short file or a wrong manifest gives no 500, no partial data and no re-use."""
    for name, path in (("one", "data/real"), ("two", "manifest.json")):
        artifact = server.container.artifact(name)
        [folder] = server.volume.glob(f"artifacts/{artifact.info()['id']}")
        (folder / path).chmod(0o644)
        os.truncate(folder / path, 2)
    short = requests.get(f"{server.url}/artifacts/one/data/real", timeout=30)
    assert (short.status_code, short.json()["error"]["code"]) == (404, "not_ready")
    assert "has 2 bytes instead of 3" in short.json()["error"]["message"]
    for path in ("files", "data", "data/real"):
        answer = requests.get(f"{server.url}/artifacts/two/{path}", timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_ready")
        assert "manifest is damaged" in answer.json()["error"]["message"]
    for name in ("one", "two"):
        again = server.container.create(f"{name}-again", {"act": "write", "text": name}, reuse=True)
        status = again.wait(timeout_s=60)
        assert (status.phase, status.reused_from) == ("completed", None)
        assert again.read("real") == name.encode()
        assert str(server.container.artifact(name).status().reason).startswith("Its data is damaged.")
