"""What an artifact has started ends before its files are digested: their digests are true, and stay so."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.client import Artifact
from tests.contract.tools.server import ToolServer, is_alive, tool_server, tool_servers
from tests.waiting import until

_count = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolServer]:
    """One container for all; each test ends what it has started, or the next would notice."""
    with tool_server("ghost", tmp_path_factory.mktemp("ghost") / "volume") as found:
        yield found


def start(server: ToolServer, note: Path, act: str, end: str = "return") -> Artifact:
    """Begin an artifact."""
    return server.container.create(f"ghost{next(_count)}", {"act": act, "note": str(note), "end": end})


def pid_of(note: Path) -> int:
    """Return the process that the tool left behind."""
    return int(until(lambda: note.exists() and note.read_text().strip()))


def is_true(artifact: Artifact) -> bool:
    """Tell whether what is served has the digest that the manifest gives."""
    [entry] = artifact.manifest().files
    return hashlib.sha256(artifact.read("output")).hexdigest() == entry.sha256


@pytest.mark.parametrize("act", ["daemon", "mapped", "bare", "fork-server"])
def test_published_files_do_not_change(act: str, server: ToolServer, tmp_path: Path) -> None:
    """A process in another session, one that writes by memory, a bare program and one of a fork server all end."""
    note = tmp_path / "note"
    artifact = start(server, note, act)
    assert artifact.wait(timeout_s=60).phase == "completed"
    assert not is_alive(pid_of(note))
    assert is_true(artifact)
    said = b"".join(artifact.iter_log()).decode()
    assert re.search(r"no newline at the end\n.* Ended 1 process \(", said)
    assert "that the tool left behind" in said


@pytest.mark.parametrize(
    ("end", "phase"), [("exit", "completed"), ("raise", "failed"), ("kill", "interrupted"), ("wait", "cancelled")]
)
def test_processes_end_however_the_artifact_ends(end: str, phase: str, server: ToolServer, tmp_path: Path) -> None:
    """Success, failure, a killed child and a cancellation leave no process."""
    note = tmp_path / "note"
    artifact = start(server, note, "daemon", end)
    pid = pid_of(note)
    if phase == "cancelled":
        artifact.cancel()
    assert artifact.wait(timeout_s=60).phase == phase
    assert not is_alive(pid)
    # The daemon's parent may be on its way out.
    assert re.search(r"Ended [12] process(es)? \(", b"".join(artifact.iter_log()).decode())


def test_a_process_of_nobody_that_writes_on_fails_the_artifact(server: ToolServer, tmp_path: Path) -> None:
    """It was handed the open file and is not below the tool: it lives, and what it may change is not published."""
    note = tmp_path / "note"
    received: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{note}.socket")
        listener.listen()

        def take() -> None:
            connection, _ = listener.accept()
            with connection:
                received.extend(socket.recv_fds(connection, 1, 1)[1])
                connection.send(b"x")

        thread = threading.Thread(target=take)
        thread.start()
        artifact = start(server, note, "hand-over")
        status = artifact.wait(timeout_s=60)
        thread.join()
    os.close(received.pop())
    assert status.phase == "failed"
    assert str(status.reason).startswith(
        f"The output 'output' is still open to write in another process ({os.getpid()})"
    )
    again = tmp_path / "again"
    assert start(server, again, "daemon").wait(timeout_s=60).phase == "completed"


@pytest.mark.parametrize("act", ["daemon", "mapped", "bare"])
def test_a_killed_workers_processes_end_at_its_next_start(act: str, tmp_path: Path) -> None:
    """They are known by environment, or by a file of the artifact that they can write to."""
    note = tmp_path / "note"
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with tool_server("ghost", tmp_path / "link/inner/volume") as server:
        artifact = start(server, note, act, "wait")
        pid = pid_of(note)
        os.kill(server.mule, 9)
        assert artifact.wait(timeout_s=60).phase == "interrupted"
        assert not is_alive(pid)


@pytest.mark.parametrize("kind", ["upload", "source", "made"])
def test_a_tool_that_changes_its_input_fails(kind: str, tmp_path: Path) -> None:
    """An upload and a fetched file are kept with their digest, and a linked one is another artifact's."""
    (tmp_path / "input").write_bytes(b"0" * 100)
    volumes = tmp_path / "volumes"
    with tool_servers(tmp_path, "ghost", BONSEYES_VOLUMES=str(volumes)) as [server]:
        volumes.mkdir()
        (volumes / "ghost").symlink_to(server.volume)
        maker = start(server, tmp_path / "first", "daemon")
        assert maker.wait(timeout_s=60).phase == "completed"
        given = {
            "source": f"http://ghost/artifacts/{maker.name}/data/output",
            "made": f"ghost/{maker.name}",
        }
        parameters = {"act": "change-input", "note": str(tmp_path / "note")}
        parameters |= {kind: given[kind]} if kind in given else {}
        files = {kind: tmp_path / "input"} if kind == "upload" else {}
        status = server.container.create("changes", parameters, files).wait(timeout_s=60)
        assert status.phase == "failed"
        name = f"'output', a file that ghost/{maker.name} has published" if kind == "made" else repr(kind)
        assert str(status.reason).startswith(f"The tool changed its input {name}.")
        assert not [*server.volume.glob("artifacts/*/given.jsonl")]
