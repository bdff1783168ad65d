"""The code server reloads definitions on request, and leaves no process behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse
from dagster._serdes import deserialize_value

from bonseyes_dagster.execution.storage.instance import LOADED_FILE
from tests.waiting import free_port, until

pytestmark = pytest.mark.slow

DEFINITIONS = """
from dagster import Definitions, job, op

@op
def one(): pass

@job(name="{}")
def only(): one()

defs = Definitions(jobs=[only])
"""


class Server:
    """A code server at a unix socket, like in an embedded project, or at a port, like in a docker project."""

    def __init__(self, folder: Path, at: str) -> None:
        self.folder = folder
        self.file = folder / "definitions.py"
        self.address: dict[str, Any] = {"host": "127.0.0.1", "port": free_port()}
        if at == "socket":
            self.address = {"socket": str(folder / "code.sock")}
        self.client = DagsterGrpcClient(**self.address)
        self.define("before")
        command = [sys.executable, "-B", "-m", "bonseyes_dagster.execution.servers.code_server"]
        options = [word for name, value in self.address.items() for word in (f"--{name}", str(value))]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, *options, "-f", str(self.file), "-d", str(folder)],
                env={**os.environ, "DAGSTER_HOME": str(folder)},
                stdout=log,
                stderr=log,
            )
        until(self._answers)

    def define(self, job: str) -> None:
        """Write definitions with one job."""
        self.file.write_text(DEFINITIONS.format(job))

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(self.client.ping("x"))
        except DagsterUserCodeUnreachableError:
            return False

    def jobs(self) -> str:
        """Return the jobs that the server describes, or its error."""
        answer = deserialize_value(self.client.list_repositories())
        if not isinstance(answer, ListRepositoriesResponse):
            return str(answer.to_string())
        from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin

        origin = GrpcServerCodeLocationOrigin(**{"host": "localhost", **self.address}, location_name="x")
        name = answer.repository_symbols[0].repository_name
        return str(self.client.external_repository(RemoteRepositoryOrigin(origin, name)))

    def children(self) -> list[psutil.Process]:
        """Return the servers that the parent has forked."""
        return psutil.Process(self.process.pid).children()


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running code server; after the test no process of it is left."""
    server = Server(tmp_path, getattr(request, "param", "socket"))
    children = server.children()
    yield server
    if server.process.poll() is None:
        children = server.children()
        server.process.terminate()
        server.process.wait(30)
    until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


@pytest.mark.parametrize("server", ["socket", "port"], indirect=True)
def test_reload_loads_edited_definitions(server: Server) -> None:
    """Broken definitions are served with their error, because runs fail with them as well."""
    assert '"before"' in server.jobs()
    server.define("after")
    assert '"before"' in server.jobs()
    loaded = server.folder / LOADED_FILE
    until(loaded.exists)
    loaded.unlink()
    server.client.reload_code(timeout=120)
    assert '"after"' in server.jobs() and '"before"' not in server.jobs()
    assert loaded.exists()
    server.file.write_text("this is no Python")
    server.client.reload_code(timeout=120)
    assert "SyntaxError" in server.jobs()
    server.define("mended")
    server.client.reload_code(timeout=120)
    assert '"mended"' in server.jobs()
    until(lambda: len(server.children()) == 1)
    # The former servers have not removed the socket of the current server.
    assert '"mended"' in server.jobs()


def test_start_touches_the_loaded_file(server: Server) -> None:
    """The pipeline containers must reload: a killed server may start again with edited definitions."""
    until((server.folder / LOADED_FILE).exists)


def test_server_goes_on_if_its_successor_dies(server: Server) -> None:
    """The request for the reload gets an error."""
    server.file.write_text("import os\nos._exit(7)\n")
    with pytest.raises(DagsterUserCodeUnreachableError) as error:
        server.client.reload_code(timeout=120)
    assert "could not be loaded again" in str(error.value.__cause__)
    assert '"before"' in server.jobs()
    server.define("after")
    server.client.reload_code(timeout=120)
    assert '"after"' in server.jobs()


def test_killed_server_ends_its_parent(server: Server) -> None:
    """The supervisor watches the parent, and starts both again."""
    (child,) = server.children()
    child.send_signal(signal.SIGKILL)
    assert server.process.wait(30) == 128 + signal.SIGKILL
    assert not Path(server.address["socket"]).exists()


def test_killed_parent_leaves_no_server(server: Server) -> None:
    """The port is free for the next server."""
    (child,) = server.children()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(30)
    until(lambda: not child.is_running())
