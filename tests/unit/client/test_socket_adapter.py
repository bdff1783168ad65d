"""The client talks to a container at a unix socket as it does over TCP."""

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
        """Answer with the Host and the path; hang up at `/hang-up`."""
        if self.path.startswith("/hang-up"):
            self.close_connection = True
            return
        body = f'{{"host": "{self.headers["Host"]}", "path": "{self.path}"}}'.encode()
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    connections = 0

    def process_request(self, request: object, client_address: object) -> None:
        """Count the connections."""
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    """A server at a unix socket."""
    with _Server(str(tmp_path / "Learn.sock"), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def _container(server: _Server) -> Container:
    return Container(sockets.url_of(str(server.server_address)), retry_s=0)


def test_requests_share_one_connection(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection for each request costs time. A proxy of the environment is not used."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    get = _container(server).transport.get_json
    assert get("/a%20b", dict, params={"x": "1"}) == {"host": "Learn", "path": "/a%20b?x=1"}
    for _ in range(5):
        assert get("/", dict)["path"] == "/"
    assert server.connections == 1


def test_forked_process_opens_its_own_connection(server: _Server) -> None:
    """Two processes must not use one connection."""
    container = _container(server)
    container.transport.get_json("/", dict)
    pid = os.fork()
    if pid == 0:
        os._exit(container.transport.get_json("/child", dict)["path"] != "/child")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert server.connections == 2


def test_errors_name_the_container_and_not_the_socket(server: _Server, tmp_path: Path) -> None:
    """A user knows the container's name, not the path of its socket."""
    transport = _container(server).transport
    with pytest.raises(errors.NotFoundError) as not_found:
        transport.request("GET", "/none")
    with pytest.raises(errors.ConnectionFailedError) as hung_up:
        transport.request("GET", "/hang-up")
    with pytest.raises(errors.ConnectionFailedError) as gone:
        Container(sockets.url_of(tmp_path / "gone.sock"), retry_s=0).transport.request("GET", "/")
    assert not_found.value.message == "http://Learn/none answered 404 Not Found."
    assert hung_up.value.message.startswith("http://Learn does not answer: ")
    assert gone.value.message == "http://gone does not answer: No such file or directory."


def test_base_url_of_a_socket_needs_an_absolute_path() -> None:
    """A wrong URL is refused before the first request."""
    for url in ("http+unix://", "http+unix:///a", "http+unix://relative.sock"):
        with pytest.raises(errors.InvalidError, match="is not a base URL"):
            Container(url)
