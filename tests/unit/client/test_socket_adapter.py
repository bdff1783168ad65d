"""The client speaks to a container at a unix socket as to any other."""

from __future__ import annotations

import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from bonseyes_dagster import errors
from bonseyes_dagster.client import Container
from bonseyes_dagster.system import sockets


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the Host and the path, and hang up on request."""
        if self.path.startswith("/hang-up"):
            self.close_connection = True
            return
        body = f'{{"host": "{self.headers["Host"]}", "path": "{self.path}"}}'.encode()
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be silent."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    connections = 0

    def process_request(self, request: object, client_address: object) -> None:
        """Count."""
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    """A server at a socket."""
    with _Server(str(tmp_path / "Learn.sock"), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def _container(server: _Server) -> Container:
    return Container(sockets.url_of(str(server.server_address)), retry_s=0)


def test_connections_are_kept(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all requests that follow each other; a proxy of the environment is not asked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    get = _container(server).transport.get_json
    assert get("/a%20b", dict, params={"x": "1"}) == {"host": "Learn", "path": "/a%20b?x=1"}
    for _ in range(5):
        assert get("/", dict)["path"] == "/"
    assert server.connections == 1


def test_a_forked_process_has_connections_of_its_own(server: _Server) -> None:
    """Two processes must not speak over one connection."""
    container = _container(server)
    container.transport.get_json("/", dict)
    pid = os.fork()
    if pid == 0:
        os._exit(container.transport.get_json("/child", dict)["path"] != "/child")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert server.connections == 2


def test_errors_name_the_container_and_not_the_socket(server: _Server, tmp_path: Path) -> None:
    """A person knows the one, and has nothing to do with the other."""
    transport = _container(server).transport
    with pytest.raises(errors.NotFoundError) as not_found:
        transport.request("GET", "/none")
    with pytest.raises(errors.ConnectionFailedError) as hung_up:
        transport.request("GET", "/hang-up")
    with pytest.raises(errors.ConnectionFailedError) as gone:
        Container(sockets.url_of(tmp_path / "gone.sock"), retry_s=0).transport.request("GET", "/")
    assert not_found.value.message == "http://Learn/none answered 404 Not Found"
    assert hung_up.value.message.startswith("no answer from http://Learn: ")
    assert gone.value.message == "no answer from http://gone: No such file or directory"


def test_a_base_url_needs_a_path() -> None:
    """Of a socket as of a host."""
    for url in ("http+unix://", "http+unix:///a", "http+unix://relative.sock"):
        with pytest.raises(errors.InvalidError, match="is not a base URL"):
            Container(url)
