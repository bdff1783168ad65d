"""A tool container keeps its promises if its processes are killed in the worst moments, and if it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import requests

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.errors import NotFoundError
from tests.contract.tools.server import ToolServer, is_alive, tool_server
from tests.waiting import until


def pids(note: Path) -> list[int]:
    """Return the process ids that a tool wrote to `note`."""
    return [int(line) for line in note.read_text().split()]


def busy(server: ToolServer, note: Path) -> tuple[Artifact, list[Artifact]]:
    """Return a running artifact with all its processes, and three queued ones."""
    running = server.container.create("running", {"act": "families", "seconds": 60, "note": str(note)})
    waiting = [server.container.create(f"waiting{number}", {"act": "write"}) for number in range(3)]
    until(lambda: b"family complete" in b"".join(running.iter_log()))
    assert len(pids(note)) == 4 and all(is_alive(pid) for pid in pids(note))
    return running, waiting


def check_recovered(server: ToolServer, note: Path, running: Artifact, waiting: list[Artifact]) -> None:
    """Check the promises of the contract for a restart."""
    status = running.wait(timeout_s=30)
    assert (status.phase, status.result) == ("interrupted", "failed")
    assert not any(is_alive(pid) for pid in pids(note))
    assert b"family complete" in b"".join(running.iter_log())
    statuses = [artifact.wait(timeout_s=30) for artifact in waiting]
    assert [status.phase for status in statuses] == ["completed"] * 3
    assert [str(status.started) for status in statuses] == sorted(str(status.started) for status in statuses)
    assert not [*server.volume.glob("artifacts/*/staging")]
    assert running.status() == status


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["mule", "master", "child", "workers", "everything"])
def test_kill_of_any_process_interrupts_at_most_the_running_artifact(victim: str, tmp_path: Path) -> None:
    """The queue goes on after each kill."""
    note = tmp_path / "pids"
    with tool_server("probe", tmp_path / "volume") as server:
        running, waiting = busy(server, note)
        if victim == "mule":
            os.kill(server.mule, signal.SIGKILL)
        elif victim == "child":
            os.kill(server.child(), signal.SIGKILL)
            status = running.wait(timeout_s=30)
            assert status.phase == "interrupted"
            assert "SIGKILL: was it out of memory?" in str(status.reason)
            until(lambda: not any(is_alive(pid) for pid in pids(note)))
            assert waiting[2].wait(timeout_s=30).phase == "completed"
            return
        elif victim == "workers":
            for pid in server.workers:
                os.kill(pid, signal.SIGKILL)
            until(lambda: server.container.is_healthy())
            assert running.status().phase == "running"
            running.cancel()
            assert waiting[2].wait(timeout_s=30).phase == "completed"
            return
        elif victim == "master":
            server.kill()
            server.start()
        else:
            for process in [*psutil.Process(server.master).children(), psutil.Process(server.master)]:
                process.kill()
            server.kill()
            server.start()
        check_recovered(server, note, running, waiting)


def test_processes_that_only_read_an_artifact_are_not_killed(tmp_path: Path) -> None:
    """They read its log or have its folder as working directory, but do not belong to it."""
    note = tmp_path / "pids"
    with tool_server("probe", tmp_path / "volume") as server:
        running, waiting = busy(server, note)
        [folder] = [path.parent for path in server.volume.glob("artifacts/*/staging")]
        reader = subprocess.Popen(["tail", "-f", folder / "log"], stdout=subprocess.DEVNULL, start_new_session=True)
        looker = subprocess.Popen(["sleep", "60"], cwd=folder, start_new_session=True)
        try:
            os.kill(server.mule, signal.SIGKILL)
            check_recovered(server, note, running, waiting)
            assert (reader.poll(), looker.poll()) == (None, None)
        finally:
            for process in (reader, looker):
                process.kill()
                process.wait(5)


def test_stop_interrupts_the_running_artifact(tmp_path: Path) -> None:
    """SIGTERM ends all processes at once; queued artifacts wait for the next start."""
    note = tmp_path / "pids"
    with tool_server("probe", tmp_path / "volume") as server:
        running, waiting = busy(server, note)
        family = psutil.Process(server.master).children(recursive=True)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 20
        assert not any(is_alive(process.pid) for process in family)
        assert not any(is_alive(pid) for pid in pids(note))
        server.start()
        check_recovered(server, note, running, waiting)
        assert running.status().reason == "The server was stopped while it ran."


def test_deletion_is_finished_after_a_crash(tmp_path: Path) -> None:
    """The worker dies while it ends the tool. The artifact stays deleted, and its folder is removed."""
    note = tmp_path / "pids"
    with tool_server("probe", tmp_path / "volume") as server:
        artifact = server.container.create("doomed", {"act": "ignore-term", "seconds": 60, "note": str(note)})
        until(lambda: b"stubborn" in b"".join(artifact.iter_log()))
        with pytest.raises(requests.Timeout):
            requests.delete(f"{server.url}/artifacts/doomed", timeout=(30, 0.5))
        until(lambda: "doomed" not in server.container.names(), 8)
        with pytest.raises(NotFoundError):
            artifact.status()
        server.kill()
        server.start()
        assert server.container.names() == []
        until(lambda: not [*server.volume.glob("artifacts/*")])
        assert not any(is_alive(pid) for pid in pids(note))


def test_leftover_folders_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """They come from creations without an answer, and from unfinished deletions."""
    volume = tmp_path / "volume"
    with tool_server("probe", volume) as server:
        kept = server.container.create("kept", {"act": "write"})
        kept.wait(timeout_s=20)
        server.kill()
        for path in ("artifacts/0123", "drafts/4567/inputs", "trash/89ab/data"):
            (volume / path).mkdir(parents=True)
            (volume / path / "file").write_text("left over")
        server.start()
        until(lambda: len([*volume.glob("artifacts/*"), *volume.glob("drafts/*"), *volume.glob("trash/*")]) == 1)
        assert kept.read("real") == b"hello"


def test_interrupted_upload_leaves_nothing(tmp_path: Path) -> None:
    """The client closes the connection in the middle of a file."""
    with tool_server("probe", tmp_path / "volume") as server:

        def half() -> object:
            yield b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nhalf\r\n'
            yield b'--b\r\nContent-Disposition: form-data; name="some-file"; filename="f"\r\n\r\n' + b"x" * 200_000
            raise ConnectionError("hanging up")

        with pytest.raises((ConnectionError, requests.ConnectionError)):
            requests.post(
                f"{server.url}/artifacts",
                data=half(),
                headers={"Content-Type": "multipart/form-data; boundary=b"},
                timeout=10,
            )
        until(lambda: not [*server.volume.glob("drafts/*")])
        assert server.container.names() == []


def test_artifacts_end_once_if_the_worker_is_killed_often(tmp_path: Path) -> None:
    """Every acknowledged artifact ends, and completed ones have all files."""
    with tool_server("probe", tmp_path / "volume") as server:
        names: list[str] = []
        for round_number in range(3):
            for number in range(12):
                name = f"r{round_number}n{number}"
                server.container.create(name, {"act": "write", "text": name})
                names.append(name)
            time.sleep(0.05 + 0.07 * round_number)
            os.kill(server.mule, signal.SIGKILL)
            before = server.mule
            until(lambda before=before: server.mule != before)  # type: ignore[misc]
        phases = []
        for name in names:
            artifact = server.container.artifact(name)
            status = artifact.wait(timeout_s=30)
            phases.append(status.phase)
            if status.phase == "completed":
                assert artifact.read("real") == name.encode()
                assert artifact.manifest().digest == status.digest
        assert set(phases) <= {"completed", "interrupted"}
        assert phases.count("interrupted") <= 3
        assert server.container.names() == names
        assert not [*server.volume.glob("artifacts/*/staging")]


def test_restarted_server_loads_the_code_again(tmp_path: Path) -> None:
    """After too many crashes the worker leaves the import to its children, but only until the server restarts."""
    with tool_server("probe", tmp_path / "volume") as server:
        server.stop()
        state = server.volume / "worker.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "state": "loading", "tries": 3}))
        server.start()
        assert server.container.create("any", {"act": "write"}).wait(timeout_s=20).phase == "completed"
        assert json.loads(state.read_text())["state"] == "ready"
        assert "the children load it instead" not in server.log.read_text()


def test_of_two_servers_on_one_volume_one_works(tmp_path: Path) -> None:
    """The worker of the other server takes over when it ends."""
    first = ToolServer("probe", tmp_path / "volume")
    second = ToolServer("probe", tmp_path / "volume")
    second.log = tmp_path / "second.log"
    try:
        first.start()
        second.start()
        first.container.create("one", {"act": "sleep", "seconds": 60})
        until(lambda: second.container.artifact("one").status().phase == "running")
        assert not psutil.Process(second.mule).children()
        waiting = second.container.create("two", {"act": "write"})
        first.stop()
        assert second.container.artifact("one").wait(timeout_s=20).phase == "interrupted"
        assert second.container.artifact(waiting.name).wait(timeout_s=20).phase == "completed"
        assert not first.container.is_healthy()
    finally:
        first.end()
        second.end()
