"""All processes of an artifact end before its files are digested, so that the digests stay right."""

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
    """Start one container for all tests; each test ends its processes, or they would disturb the next one."""
    with tool_server("ghost", tmp_path_factory.mktemp("ghost") / "volume") as found:
        yield found


def start(server: ToolServer, note: Path, act: str, end: str = "return") -> Artifact:
    """Create an artifact."""
    return server.container.create(f"ghost{next(_count)}", {"act": act, "note": str(note), "end": end})


def pid_of(note: Path) -> int:
    """Return the process id that the tool left behind."""
    return int(until(lambda: note.exists() and note.read_text().strip()))


def has_right_digest(artifact: Artifact) -> bool:
    """Tell whether the served file has the digest from the manifest."""
    [entry] = artifact.manifest().files
    return hashlib.sha256(artifact.read("output")).hexdigest() == entry.sha256


@pytest.mark.parametrize("act", ["daemon", "mapped", "bare", "fork-server"])
def test_writers_end_before_files_are_digested(act: str, server: ToolServer, tmp_path: Path) -> None:
    """They are a process in another session, one with a mapped file, a bare program, and one of a fork server."""
    note = tmp_path / "note"
    artifact = start(server, note, act)
    assert artifact.wait(timeout_s=60).phase == "completed"
    assert not is_alive(pid_of(note))
    assert has_right_digest(artifact)
    log = b"".join(artifact.iter_log()).decode()
    assert re.search(r"no newline at the end\n.* Ended 1 process \(", log)
    assert "that the tool left behind" in log


@pytest.mark.parametrize(
    ("end", "phase"), [("exit", "completed"), ("raise", "failed"), ("kill", "interrupted"), ("wait", "cancelled")]
)
def test_no_process_is_left_after_any_end_of_an_artifact(
    end: str, phase: str, server: ToolServer, tmp_path: Path
) -> None:
    """The ends are success, failure, a killed child and a cancellation."""
    note = tmp_path / "note"
    artifact = start(server, note, "daemon", end)
    pid = pid_of(note)
    if phase == "cancelled":
        artifact.cancel()
    assert artifact.wait(timeout_s=60).phase == phase
    assert not is_alive(pid)
    # The parent of the daemon may still be ending.
    assert re.search(r"Ended [12] process(es)? \(", b"".join(artifact.iter_log()).decode())


def test_output_open_in_a_foreign_process_fails_the_artifact(server: ToolServer, tmp_path: Path) -> None:
    """The tool has sent the open file to a process that is no descendant. It lives on and could change the output."""
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


@pytest.mark.slow
@pytest.mark.parametrize("act", ["daemon", "mapped", "bare"])
def test_processes_of_a_killed_worker_end_at_the_next_start(act: str, tmp_path: Path) -> None:
    """The new worker finds them by their environment, or by a file of the artifact that they can write to."""
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
def test_tool_that_changes_its_input_fails(kind: str, tmp_path: Path) -> None:
    """An upload or a fetched file has a saved digest, and a linked file belongs to another artifact."""
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
