"""One real tool container makes artifacts that succeed, or fail in every way that tools can."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from bonseyes_dagster.errors import InvalidError, NotFoundError, NotReadyError
from bonseyes_dagster.model import Status
from tests.contract.tools.server import ToolServer, is_alive, tool_server
from tests.waiting import until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolServer]:
    """Start a `probe` container for all tests of this module."""
    with tool_server("probe", tmp_path_factory.mktemp("probe") / "volume") as started:
        yield started


_count = iter(range(10**6))


def make(server: ToolServer, act: str, *, timeout_s: float = 30, **parameters: Any) -> Status:
    """Make an artifact and wait for its end."""
    return server.container.create(f"a{next(_count)}", {"act": act, **parameters}).wait(timeout_s=timeout_s)


def log_of(server: ToolServer, status: Status) -> str:
    """Return the complete log."""
    return b"".join(server.container.artifact(status.name).iter_log()).decode()


def pids(note: Path) -> list[int]:
    """Return the process ids that a tool wrote to `note`."""
    return [int(line) for line in note.read_text().split()]


def test_output_file_is_published(server: ToolServer) -> None:
    """It is read-only on disk, and the status has its digest and size."""
    status = make(server, "write", text="hello")
    assert (status.phase, status.reason, status.size) == ("completed", None, 5)
    artifact = server.container.artifact(status.name)
    assert artifact.read("real") == b"hello"
    assert artifact.manifest().digest == status.digest
    [published] = server.volume.glob("artifacts/*/data/real")
    assert published.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("raise", "ValueError: too bad"),
        ("tool-error", "too bad"),
        ("exit", "The tool exited with 3."),
        ("kill", "out of memory?"),
        ("crash", "SIGSEGV"),
        ("full", "OSError: [Errno 28] No space left on device"),
        ("link-out", "'out' is a symbolic link to the outside"),
        ("link-up", "'a/out' is a symbolic link"),
        ("link-nowhere", "'gone' is a symbolic link that leads nowhere"),
        ("link-folder", "'loop' is a symbolic link to something that is not a file"),
        ("pipe", "'pipe' is a pipe"),
        ("socket", "'socket' is a socket"),
        ("bad-name", "name that is not UTF-8"),
        ("no-folder", "replaced by something that is not a folder"),
        ("escape", "not a path inside of the artifact"),
    ],
)
def test_failed_artifact_has_a_reason(server: ToolServer, act: str, reason: str) -> None:
    """A failed artifact serves no data and leaves no staging folder.

    If another process killed the tool, the artifact is interrupted: a second attempt may succeed.
    """
    status = make(server, act, text="too bad")
    assert status.phase == ("interrupted" if act == "kill" else "failed")
    assert reason in str(status.reason)
    with pytest.raises(NotReadyError):
        server.container.artifact(status.name).manifest()
    assert not [*server.volume.glob("artifacts/*/staging")]
    assert Path("/etc/passwd").stat().st_mode & 0o777 == 0o644


def test_traceback_begins_with_the_tools_own_code(server: ToolServer) -> None:
    """The author sees only the code of the tool. A ToolError is a sentence without a traceback."""
    text = log_of(server, make(server, "raise", text="oops"))
    assert "Traceback" in text and "probe.py" in text and "child.py" not in text
    assert "Traceback" not in log_of(server, make(server, "tool-error", text="oops"))
    assert "Segmentation fault" in log_of(server, make(server, "crash"))


def test_symbolic_link_inside_the_artifact_becomes_a_file(server: ToolServer) -> None:
    """Readers get a plain file."""
    status = make(server, "link-in", text="same")
    assert server.container.artifact(status.name).read("a/link") == b"same"
    [link] = server.volume.glob("artifacts/*/data/a/link")
    assert not link.is_symlink()


def test_hard_link_to_the_outside_is_copied(server: ToolServer, tmp_path: Path) -> None:
    """The file outside does not become read-only, and its changes do not reach the artifact."""
    victim = tmp_path / "note.victim"
    victim.write_text("before")
    victim.chmod(0o600)
    status = make(server, "hard-link", note=str(tmp_path / "note"))
    victim.write_text("after!")
    assert victim.stat().st_mode & 0o777 == 0o600
    assert server.container.artifact(status.name).read("linked") == b"before"


def test_outputs_without_permissions_are_published(server: ToolServer) -> None:
    """The tool may set any mode on its files."""
    status = make(server, "no-permission")
    assert server.container.artifact(status.name).read("locked/file") == b"x"
    server.container.artifact(status.name).delete()
    assert not [*server.volume.glob("trash/*")]


def test_artifact_with_500_files_is_published(server: ToolServer) -> None:
    """Tools for datasets write many files."""
    status = make(server, "many")
    assert len(server.container.artifact(status.name).manifest().files) == 501


def test_log_has_the_output_of_all_sources(server: ToolServer) -> None:
    """The sources are print, logging, stderr, child programs and C libraries."""
    text = log_of(server, make(server, "prints"))
    for source in ("print", "logging", "stderr", "program", "C"):
        assert f"from {source}\n" in text


def test_exit_with_zero_completes_the_artifact(server: ToolServer) -> None:
    """A tool may end by sys.exit(0)."""
    assert make(server, "exit-zero").phase == "completed"


def test_metrics_and_progress_of_a_completed_artifact(server: ToolServer) -> None:
    """The progress of the last step stays in the status."""
    status = make(server, "metrics")
    artifact = server.container.artifact(status.name)
    assert artifact.metrics() == ["loss"]
    points, offset = artifact.metric("loss")
    assert [(point.step, point.value) for point in points] == [(step, 1 / (step + 1)) for step in range(5)]
    assert artifact.metric("loss", offset) == ([], offset)
    progress = artifact.status().progress
    assert (progress.done, progress.total, progress.unit, progress.message) == (5, 5, "steps", "measuring")


@pytest.mark.slow
def test_metrics_progress_and_log_are_live(server: ToolServer) -> None:
    """Clients follow them while the tool runs."""
    artifact = server.container.create(f"live{next(_count)}", {"act": "metrics", "seconds": 2})
    seen: list[tuple[float, bytes]] = []
    follower = threading.Thread(
        target=lambda: seen.extend((time.monotonic(), chunk) for chunk in artifact.iter_log(follow=True))
    )
    follower.start()
    until(lambda: artifact.status().progress.done and 0 < len(artifact.metric("loss")[0]) < 5, 60)
    assert artifact.status().phase == "running"
    artifact.wait(timeout_s=60)
    follower.join(30)
    assert b"".join(chunk for _, chunk in seen) == b"".join(artifact.iter_log())
    assert seen[-1][0] - seen[0][0] > 0.4


def test_long_polls_end_soon_after_the_artifact(server: ToolServer) -> None:
    """They wait in several server processes, and the worker wakes all."""
    # Without a wake-up, servers check every 5 s. A busy machine may be late, too, but not each time.
    assert any(slowest_answer_s(server) < 3 for _ in range(3))


def slowest_answer_s(server: ToolServer) -> float:
    """Return the seconds from the end of an artifact to the last answer of the requests that wait for it."""
    artifact = server.container.create(f"wait{next(_count)}", {"act": "sleep", "seconds": 0.5})
    ended: list[float] = []

    def wait() -> None:
        body = requests.get(f"{server.url}/artifacts/{artifact.name}/status?wait=20", timeout=30).json()
        assert body["phase"] == "completed"
        ended.append(time.time())

    waiters = [threading.Thread(target=wait) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join(30)
    finished = datetime.fromisoformat(str(artifact.status().finished)).timestamp()
    assert len(ended) == 8
    return max(ended) - finished


def test_processes_that_a_tool_leaves_behind_are_killed(server: ToolServer, tmp_path: Path) -> None:
    """Also those in other sessions. The artifact is completed."""
    note = tmp_path / "pids"
    assert make(server, "leave-behind", note=str(note)).phase == "completed"
    assert len(pids(note)) == 3
    assert not any(is_alive(pid) for pid in pids(note))


def test_cancel_ends_all_processes_of_a_tool(server: ToolServer, tmp_path: Path) -> None:
    """SIGTERM reaches the process group at once, and processes in other sessions are killed."""
    note = tmp_path / "pids"
    artifact = server.container.create(f"family{next(_count)}", {"act": "families", "seconds": 60, "note": str(note)})
    until(lambda: b"family complete" in b"".join(artifact.iter_log()))
    assert len(pids(note)) == 4 and all(is_alive(pid) for pid in pids(note))
    start = time.monotonic()
    artifact.cancel()
    status = artifact.wait(timeout_s=20)
    assert time.monotonic() - start < 5
    assert (status.phase, status.result, status.reason) == ("cancelled", "failed", "Cancelled while it ran.")
    assert not any(is_alive(pid) for pid in pids(note))


def test_cancel_of_a_queued_artifact_is_immediate(server: ToolServer) -> None:
    """It never runs, and the positions of later ones move up."""
    first = server.container.create(f"busy{next(_count)}", {"act": "sleep", "seconds": 60})
    until(lambda: first.status().phase == "running")
    waiting = [server.container.create(f"queued{next(_count)}", {"act": "write"}) for _ in range(3)]
    assert [artifact.status().position for artifact in waiting] == [1, 2, 3]
    assert waiting[1].cancel().phase == "cancelled"
    assert waiting[2].status().position == 2
    waiting[0].delete()
    first.cancel()
    assert waiting[2].wait(timeout_s=20).phase == "completed"
    assert waiting[1].cancel().phase == "cancelled"
    assert waiting[1].status().started is None
    with pytest.raises(NotFoundError):
        waiting[0].status()


@pytest.mark.slow
def test_tool_that_ignores_sigterm_is_killed_after_ten_seconds(server: ToolServer) -> None:
    """The grace period is ten seconds."""
    artifact = server.container.create(f"stubborn{next(_count)}", {"act": "ignore-term", "seconds": 60})
    until(lambda: b"stubborn\n" in b"".join(artifact.iter_log()))
    start = time.monotonic()
    artifact.cancel()
    assert artifact.wait(timeout_s=20).phase == "cancelled"
    assert 9 < time.monotonic() - start < 13


def test_delete_of_a_running_artifact_ends_it_first(server: ToolServer, tmp_path: Path) -> None:
    """After the answer to DELETE, its processes and files are gone, and its name is free."""
    note = tmp_path / "pids"
    name = f"doomed{next(_count)}"
    artifact = server.container.create(name, {"act": "sleep", "seconds": 60, "note": str(note)})
    until(lambda: note.exists() and artifact.status().phase == "running")
    [folder] = [path.parent for path in server.volume.glob("artifacts/*/staging")]
    artifact.delete()
    assert not any(is_alive(pid) for pid in pids(note))
    assert not folder.exists()
    with pytest.raises(NotFoundError):
        artifact.status()
    assert server.container.create(name, {"act": "write"}).wait(timeout_s=20).phase == "completed"


def test_temporary_folder_is_removed(server: ToolServer, tmp_path: Path) -> None:
    """It lies outside of the volume, where no sweep would find it."""
    note = tmp_path / "note"
    assert make(server, "temporary", note=str(note)).phase == "completed"
    path = Path((tmp_path / "note.temporary").read_text())
    assert path.parent.name.startswith("bonseyes-")
    assert not path.parent.exists()


def test_upload_reaches_the_tool_and_can_be_read_back(server: ToolServer, tmp_path: Path) -> None:
    """The client may use any file name."""
    content = os.urandom(300_000)
    url = f"{server.url}/artifacts"
    name = f"upload{next(_count)}"
    files = {
        "name": (None, name),
        "data": (None, '{"act": "write"}'),
        "some-file": ("../../../etc/pass wd\x00.bin", content),
    }
    requests.post(url, files=files, timeout=20).raise_for_status()
    artifact = server.container.artifact(name)
    assert artifact.wait(timeout_s=20).phase == "completed"
    assert artifact.read("file.bin") == content
    assert artifact.input_files() == ["some-file"]
    assert artifact.input_file("some-file", tmp_path / "back").read_bytes() == content
    assert artifact.input_parameters()["seconds"] == 0
    assert not [*server.volume.glob("drafts/*")]


def test_answer_names_every_wrong_parameter(server: ToolServer) -> None:
    """The mistakes are: missing, unknown, of a wrong type, not allowed to be fetched."""
    with pytest.raises(InvalidError) as caught:
        server.container.create(
            f"bad{next(_count)}", {"seconds": -1, "unknown": 1, "some-url": "http://169.254.169.254/latest"}
        )
    assert set(caught.value.detail) == {"act", "seconds", "unknown", "some-url"}


def test_refused_creation_leaves_its_name_free(server: ToolServer) -> None:
    """It leaves no folder, either."""
    before = len([*server.volume.glob("artifacts/*")])
    with pytest.raises(InvalidError):
        server.container.create("refused", {})
    with pytest.raises(NotFoundError):
        server.container.artifact("refused").status()
    assert len([*server.volume.glob("artifacts/*")]) == before


def test_info_has_the_provenance(server: ToolServer) -> None:
    """The provenance has tool, version, parameters and fingerprint."""
    info = server.container.artifact(make(server, "write").name).info()
    assert info["provenance"]["version"] == server.container.describe().version
    assert info["provenance"]["tool"] == "probe"
    assert len(info["provenance"]["fingerprint"]) == 64
    assert info["parameters"]["act"] == "write"
