"""The client with real servers: a tool container, and the in-memory server as a tool and as a pipeline."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster import errors
from bonseyes_dagster.client import Artifact, Container
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import Collection
from bonseyes_dagster.web.server import uwsgi_options

HERE = Path(__file__).parent
SAMPLE = HERE / "tools" / "sample"


class Server:
    """A server process that a test can kill and start again at the same address."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        bind = f"127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "bonseyes_dagster.tool", "--bind", bind, "--tool", str(SAMPLE)]
        argv += ["--volume", str(self.folder / "volume")]
        if self.kind != "tool":
            settings = Settings(processes=1, threads=8)
            options = uwsgi_options("memory_app:from_environ()", bind, settings=settings)
            argv = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", *options]
        kind = "runs" if self.kind == "twin-runs" else "artifacts"
        environment = {**os.environ, "SAMPLE_KIND": kind, "PYTHONPATH": f"{HERE}:{HERE.parent.parent}"}
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder / "metrics")
        (self.folder / "metrics").mkdir(exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while not self.container().is_healthy():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the whole process group with a signal."""
        assert self.process is not None
        os.killpg(self.process.pid, number)
        self.process.wait(30)

    def container(self) -> Container:
        """Return a client."""
        # The in-memory server has the description of the sample tool, also with the collection /runs.
        kind: Collection | None = "runs" if self.kind == "twin-runs" else None
        return Container(f"http://127.0.0.1:{self.port}", name="sample", retry_s=5, kind=kind)


@pytest.fixture(scope="module", params=["tool", "twin", "twin-runs"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield each implementation in turn."""
    server = Server(request.param, tmp_path_factory.mktemp(request.param))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def container(server: Server) -> Container:
    """Return a client of the server."""
    return server.container()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return an unused name."""
    return f"a{abs(hash(request.node.nodeid))}"


def test_description_kind_and_openapi_are_read(container: Container, server: Server) -> None:
    """Each with its own type."""
    description = container.describe()
    assert description.name == "sample"
    assert {parameter.name for parameter in description.parameters} >= {"text", "upload"}
    assert container.kind == ("runs" if server.kind == "twin-runs" else "artifacts")
    assert container.openapi()["openapi"].startswith("3.1")


def test_uploads_come_back_unchanged(container: Container, name: str, tmp_path: Path) -> None:
    """Byte for byte and verified, with parameters and log."""
    upload = tmp_path / "upload"
    upload.write_bytes(os.urandom(5_000_000))
    artifact = container.create(name, {"files": ["a/b.txt", "c.txt"], "steps": 2}, {"upload": upload})
    heard: list[str] = []
    status = artifact.wait(60, lambda status: heard.append(status.phase))
    assert status.phase == heard[-1] == "completed", status.reason
    manifest = artifact.download_all(tmp_path / "all")
    assert [entry.path for entry in manifest.files] == ["a/b.txt", "c.txt", "upload.bin"]
    assert status.digest == manifest.digest
    assert (tmp_path / "all/upload.bin").read_bytes() == upload.read_bytes()
    assert artifact.read("c.txt") == b"hello\n"
    assert artifact.input_files() == ["upload"]
    assert artifact.input_file("upload", tmp_path / "back").read_bytes() == upload.read_bytes()
    assert artifact.input_parameters()["steps"] == 2
    assert b"step 1" in b"".join(artifact.iter_log())
    points, offset = artifact.metric("loss")
    assert (artifact.metrics(), [point.value for point in points]) == (["loss"], [1.0, 0.5])
    assert artifact.metric("loss", offset) == ([], offset)
    assert artifact.info()
    assert name in container.names()
    artifact.delete()
    with pytest.raises(errors.NotFoundError):
        artifact.status()


def test_a_download_is_resumed(container: Container, name: str, tmp_path: Path) -> None:
    """Only the missing half of a file is transferred."""
    artifact = container.create(name, {"repeat": 500_000})
    assert artifact.wait(60).phase == "completed"
    entry = artifact.manifest().files[0]
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
    assert artifact.download("file.txt", tmp_path).read_bytes() == whole
    assert received == [200, 206]


def test_a_log_is_followed_while_it_grows(container: Container, name: str) -> None:
    """Lines arrive before the end, and all of them arrive."""
    artifact = container.create(name, {"steps": 4, "pause": 0.3})
    lines = artifact.iter_log(follow=True)
    first = next(lines)
    assert not artifact.status().is_final
    text = first + b"".join(lines)
    assert [line for line in text.splitlines() if line.startswith(b"step")] == [b"step %d" % n for n in range(4)]
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


def test_many_threads_use_one_client(container: Container, name: str) -> None:
    """They make and read thirty artifacts at the same time."""
    wrong: list[object] = []

    def make(number: int) -> None:
        artifact = container.create(f"{name}-{number}", {"text": str(number)})
        if artifact.wait(90).phase != "completed" or artifact.read("file.txt") != str(number).encode():
            wrong.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert wrong == []
    assert len(container.statuses(limit=10)) == 10


def test_a_wait_outlives_its_server(server: Server, name: str) -> None:
    """The server is killed while an artifact runs: the wait continues on the next server and gets the result."""
    if server.kind != "tool":
        pytest.skip("the twin keeps nothing")
    artifact = server.container().create(name, {"steps": 1, "pause": 60})
    while artifact.status().phase != "running":
        time.sleep(0.1)
    found: list[object] = []

    def wait(artifact: Artifact) -> None:
        found.append(artifact.wait(60).phase)

    waiting = threading.Thread(target=wait, args=(artifact,))
    waiting.start()
    time.sleep(0.5)
    server.stop(signal.SIGKILL)
    time.sleep(1)
    server.start()
    waiting.join(60)
    assert found == ["interrupted"]
