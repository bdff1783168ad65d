"""The client with every implementation of the contract."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bonseyes_dagster import errors
from bonseyes_dagster.client import Container
from tests.contract.serving import SAMPLE, Server, serving, tool_argv
from tests.waiting import free_port, until


@pytest.fixture
def container(server: Server) -> Container:
    """Return a client of the server."""
    return server.container


@pytest.fixture
def name(server: Server) -> str:
    """Return an unused name."""
    return server.new_name()


def test_description_kind_and_openapi_are_read(container: Container, server: Server) -> None:
    """Each with its own type."""
    description = container.describe()
    assert description.name == ("sample-runs" if server.step else "sample")
    assert {parameter.name for parameter in description.parameters} >= {"text", "upload"}
    assert container.kind == server.collection
    assert container.openapi()["openapi"].startswith("3.1")


def test_uploads_come_back_unchanged(container: Container, server: Server, name: str, tmp_path: Path) -> None:
    """Byte for byte and verified, with parameters and log."""
    upload = tmp_path / "upload"
    upload.write_bytes(os.urandom(5_000_000))
    artifact = container.create(name, {"files": ["a/b.txt", "c.txt"], "steps": 2}, {"upload": upload})
    phases: list[str] = []
    status = artifact.wait(60, lambda status: phases.append(status.phase))
    assert status.phase == phases[-1] == "completed", status.reason
    manifest = artifact.download_all(tmp_path / "all")
    assert [entry.path for entry in manifest.files] == server.paths("a/b.txt", "c.txt", "upload.bin")
    assert status.digest == manifest.digest
    assert (tmp_path / "all" / server.path("upload.bin")).read_bytes() == upload.read_bytes()
    assert artifact.read(server.path("c.txt")) == b"hello\n"
    assert artifact.input_files() == ["upload"]
    assert artifact.input_file("upload", tmp_path / "back").read_bytes() == upload.read_bytes()
    assert artifact.input_parameters()["steps"] == 2
    assert b"step 1" in b"".join(artifact.iter_log())
    metrics = artifact.metrics()
    assert metrics == server.metrics("loss")
    points, offset = artifact.metric(metrics[-1])
    assert [(point.step, point.value) for point in points] == server.points([1.0, 0.5])
    assert artifact.metric(metrics[-1], offset) == ([], offset)
    assert artifact.info()
    assert name in container.names()
    artifact.delete()
    with pytest.raises(errors.NotFoundError):
        artifact.status()


def test_a_download_is_resumed(container: Container, server: Server, name: str, tmp_path: Path) -> None:
    """Only the missing half of a file is transferred."""
    artifact = container.create(name, {"repeat": 500_000})
    assert artifact.wait(60).phase == "completed"
    (entry,) = (entry for entry in artifact.manifest().files if entry.path == server.path("file.txt"))
    whole = b"hello\n" * 500_000
    assert entry.sha256 == hashlib.sha256(whole).hexdigest()
    (tmp_path / f".file.txt.{entry.sha256[:16]}.part").write_bytes(whole[: entry.size // 2])
    received: list[int] = []
    send = container.transport.request

    def watch(*args: object, **options: object) -> object:
        response = send(*args, **options)  # type: ignore[arg-type]
        received.append(response.status_code)
        return response

    container.transport.request = watch  # type: ignore[method-assign,assignment]
    assert artifact.download(entry.path, tmp_path).read_bytes() == whole
    assert received == [200, 206]


def test_a_log_is_followed_while_it_grows(container: Container, name: str) -> None:
    """Lines arrive before the end, and all of them arrive."""
    artifact = container.create(name, {"steps": 4, "pause": 0.3})
    pieces = artifact.iter_log(follow=True)
    first = next(pieces)
    assert not artifact.status().is_final
    text = first + b"".join(pieces)
    # A run's log has the time and the step before each line.
    lines = [line.rpartition(b": ")[2] for line in text.splitlines()]
    assert [line for line in lines if line.startswith(b"step ")] == [b"step %d" % n for n in range(4)]
    assert artifact.status().is_final


def test_a_cancel_ends_a_wait(container: Container, name: str) -> None:
    """A long poll ends at once when another thread cancels the artifact."""
    artifact = container.create(name, {"steps": 1, "pause": 60})
    with pytest.raises(errors.WaitTimeoutError):
        artifact.wait(0.5)
    threading.Timer(0.5, artifact.cancel).start()
    started = time.monotonic()
    assert artifact.wait(30).phase == "cancelled"
    assert time.monotonic() - started < 15
    artifact.delete()


def test_failures_have_reasons(container: Container, name: str, tmp_path: Path) -> None:
    """The tool's message arrives, and there is no data."""
    artifact = container.create(name, {"fail": "no such luck"})
    status = artifact.wait(30)
    assert status.phase == "failed"
    assert "no such luck" in (status.reason or "")
    with pytest.raises(errors.NotReadyError):
        artifact.download_all(tmp_path)


def test_second_create_is_a_conflict_without_the_same_key(container: Container, name: str) -> None:
    """The same key gives the same artifact; another body with it is refused."""
    container.create(name, {"repeat": 2}, idempotency_key=name)
    assert container.create(name, {"repeat": 2}, idempotency_key=name).name == name
    with pytest.raises(errors.InvalidError):
        container.create(name, {"repeat": 3}, idempotency_key=name)
    with pytest.raises(errors.ConflictError):
        container.create(name, {"repeat": 2})


def test_bad_parameters_are_all_named(container: Container, name: str) -> None:
    """The caller gets the server's detail."""
    with pytest.raises(errors.InvalidError) as raised:
        container.create(name, {"repeat": -1, "nothing": 1}, {"upload": b"x"})
    assert {"repeat", "nothing"} <= set(raised.value.detail)


def test_many_threads_use_one_client(container: Container, server: Server, name: str) -> None:
    """They make and read thirty artifacts at the same time."""
    wrong: list[object] = []

    def make(number: int) -> None:
        artifact = container.create(f"{name}-{number}", {"text": str(number)})
        if artifact.wait(90).phase != "completed" or artifact.read(server.path("file.txt")) != str(number).encode():
            wrong.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert wrong == []
    assert len(container.statuses(limit=10)) == 10


def test_a_wait_outlives_its_server(tmp_path: Path) -> None:
    """The server is killed while an artifact runs: the wait continues on the next server and gets the result."""
    environ = {"BONSEYES_TOOL": str(SAMPLE), "BONSEYES_VOLUME": str(tmp_path / "volume")}
    bind = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(1) as pool:
        with serving(tool_argv, tmp_path, environ, bind=bind) as first:
            artifact = first.container.create("waited", {"steps": 1, "pause": 60})
            until(lambda: artifact.status().phase == "running")
            waiting = pool.submit(artifact.wait, 60)
            time.sleep(0.5)
            os.killpg(first.process.pid, signal.SIGKILL)
            first.process.wait(10)
        with serving(tool_argv, tmp_path, environ, bind=bind):
            assert waiting.result(60).phase == "interrupted"
