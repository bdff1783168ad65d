"""Tools fetch only from allowed hosts: by name, by address, and through redirects."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.errors import ForbiddenError, TooLargeError, ToolError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system import sockets
from bonseyes_dagster.tool.fetching.outbound import Policy, fetch


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        body = b"x" * 1000
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", "2000" if self.path == "/short" else "1000")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    """Run a server on this machine, and return its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def policy(*outbound: str, addresses: Path | None = None) -> Policy:
    """Return a policy for the list `outbound`."""
    return Policy(outbound, Addresses(addresses))


def test_listed_address_is_fetched(port: int, tmp_path: Path) -> None:
    """The downloaded file is complete."""
    fetched = fetch(f"http://127.0.0.1:{port}/data", tmp_path / "data", policy("127.0.0.1"), Settings())
    assert (fetched.filename, fetched.size) == ("data", 1000)
    assert (tmp_path / "data").read_bytes() == b"x" * 1000


@pytest.mark.parametrize("outbound", [(), ("127.0.0.2",), ("127.0.0.1:1",), ("example.org",), ("*",), ("*.0.0.1",)])
def test_address_that_is_not_listed_is_refused(port: int, tmp_path: Path, outbound: tuple[str, ...]) -> None:
    """No file is made."""
    with pytest.raises(ForbiddenError):
        fetch(f"http://127.0.0.1:{port}/data", tmp_path / "data", policy(*outbound), Settings())
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "file:///etc/passwd", "http://", "//127.0.0.1/x", "http://[::1", "http://127.0.0.1:99999/"],
)
def test_urls_other_than_http_are_refused(url: str) -> None:
    """Only http and https URLs are fetched."""
    with pytest.raises(ForbiddenError):
        policy("127.0.0.1", "localhost", "*").check_url(url)


def test_listed_name_with_a_private_address_is_refused(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its DNS server could send us to our own network."""
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(ForbiddenError, match="may not connect"):
        fetch(f"http://good.example.org:{port}/data", tmp_path / "data", policy("*.example.org"), Settings())
    fetch(f"http://good.example.org:{port}/data", tmp_path / "ok", policy("*.example.org", "127.0.0.0/8"), Settings())
    for address in ("169.254.169.254", "::ffff:127.0.0.1", "fd00::1", "0.0.0.0", "100.64.0.1"):
        answer[0] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
        with pytest.raises(ForbiddenError):
            policy("*.example.org", "*").resolve("good.example.org", port)


def test_dns_is_asked_once_per_connection(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer could have another address than the checked one."""
    asked: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    fetch(f"http://a.example.org:{port}/d", tmp_path / "d", policy("a.example.org", "127.0.0.1"), Settings())
    assert asked == ["a.example.org"]


def test_redirects_are_checked(port: int, tmp_path: Path) -> None:
    """A redirect is checked like any other connection."""
    inside = f"http://127.0.0.1:{port}"
    fetch(f"{inside}/to/{inside}/data", tmp_path / "ok", policy("127.0.0.1"), Settings())
    for target in (f"http://localhost:{port}/data", "http://169.254.169.254/", "file:///etc/passwd"):
        with pytest.raises((ForbiddenError, ToolError)):
            fetch(f"{inside}/to/{target}", tmp_path / "bad", policy("127.0.0.1"), Settings())
    with pytest.raises(ToolError):
        fetch(f"{inside}/to/{inside}/to/" * 8, tmp_path / "bad", policy("127.0.0.1"), Settings())


def test_containers_of_the_address_file_are_allowed(port: int, tmp_path: Path) -> None:
    """Only their own names and addresses are allowed."""
    file = tmp_path / "addresses.json"
    file.write_text(json.dumps({"import": f"http://127.0.0.1:{port}"}))
    known = policy(addresses=file)
    fetch("http://import/artifacts/a/data", tmp_path / "ok", known, Settings())
    for url in ("http://other/x", f"http://127.0.0.1:{port + 1}/x", "http://import:81/x", "http://localhost/x"):
        with pytest.raises(ForbiddenError):
            known.check_url(url)


def test_only_sockets_of_containers_are_allowed(tmp_path: Path) -> None:
    """No other socket of the machine is allowed, neither as a parameter nor by a redirect."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = {"/to": sockets.url_of(tmp_path / "other.sock") + "/x", "/self": "/data"}.get(self.path)
            self.send_response(302 if target else 200)
            self.send_header("Location", target or "")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        def get_request(self) -> tuple[socket.socket, str]:
            return super().get_request()[0], "socket"

    file, other = tmp_path / "addresses.json", sockets.url_of(tmp_path / "other.sock")
    file.write_text(json.dumps({"import": sockets.url_of(tmp_path / "import.sock")}))
    known = policy(addresses=file)
    with Server(str(tmp_path / "import.sock"), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        fetch("http://import/self", tmp_path / "ok", known, Settings())
        with pytest.raises(ForbiddenError):
            fetch("http://import/to", tmp_path / "bad", known, Settings())
        server.shutdown()
    for url in (f"{other}/x", "http+unix://%2Frun%2Fdocker.sock/info", "http://other/x", "http+unix:///x"):
        with pytest.raises(ForbiddenError):
            known.check_url(url)
    (tmp_path / "import.sock").unlink()
    with pytest.raises(ToolError) as gone:
        fetch("http://import/self", tmp_path / "gone", known, Settings())
    assert str(tmp_path) not in gone.value.message


def test_without_an_address_file_a_dotless_name_at_port_80_is_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address must be private and not that of this machine."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("172.18.0.3", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    policy().check_url("http://training/artifacts/a")
    assert policy().resolve("training", 80) == found
    for address in ("127.0.0.1", "169.254.169.254", "8.8.8.8"):
        found[0] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))
        with pytest.raises(ForbiddenError):
            policy().resolve("training", 80)
    for url in ("http://training:9200/x", "https://training/x", "http://training.example.org/"):
        with pytest.raises(ForbiddenError):
            policy().check_url(url)


def test_too_large_short_or_missing_file_fails(port: int, tmp_path: Path) -> None:
    """No incomplete file may become an input."""
    allowed = policy("127.0.0.1")
    with pytest.raises(TooLargeError):
        fetch(f"http://127.0.0.1:{port}/d", tmp_path / "a", allowed, Settings(upload_limit_bytes=999))
    with pytest.raises(ToolError):
        fetch(f"http://127.0.0.1:{port}/short", tmp_path / "b", allowed, Settings())
    with pytest.raises(ToolError, match="404"):
        fetch(f"http://127.0.0.1:{port}/missing", tmp_path / "c", allowed, Settings())


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::10.0.0.1",
        "64:ff9b:1:a00:0:100::",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::1",
        "::127.0.0.1",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "2001:0:808:808::f5ff:fffe",
    ],
)
def test_private_ipv4_address_inside_an_ipv6_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAT64, 6to4, Teredo and IPv4-compatible addresses lead to the IPv4 address that they contain."""
    answer = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 80, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(ForbiddenError, match="may not connect"):
        policy("*.example.org").resolve("good.example.org", 80)


@pytest.mark.parametrize("address", ["64:ff9b::8.8.8.8", "2002:808:808::1", "2606:4700::1111", "8.8.8.8"])
def test_public_address_of_a_listed_name_is_allowed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine behind NAT64 reaches the public IPv4 Internet only in this way."""
    answer = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 80, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    assert policy("*.example.org").resolve("good.example.org", 80) == answer
