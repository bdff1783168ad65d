"""On a real server, waiting requests and slow clients hold no thread."""

from __future__ import annotations

import os
import re
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from tests.contract.serving import ServerProcess, memory_argv, serving
from tests.waiting import until

THREADS = {"BONSEYES_THREADS": "4"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Yield a server with very few threads."""
    with serving(memory_argv, tmp_path_factory.mktemp("server"), THREADS) as found:
        yield found


@contextmanager
def asked(server: ServerProcess, path: str, count: int, *, headers: str = "") -> Iterator[list[socket.socket]]:
    """Send `count` requests for a path of an artifact, and read nothing yet."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.settimeout(30)
            client.connect(server.address)
            client.sendall(f"GET /artifacts/{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            clients.append(client)
        yield clients


def median_ms(server: ServerProcess, path: str) -> float:
    """Return the median duration of an ordinary request."""
    taken = []
    for _ in range(20):
        begun_s = time.monotonic()
        assert requests.get(f"{server.url}{path}", timeout=20).status_code == 200
        taken.append(time.monotonic() - begun_s)
    return 1e3 * statistics.median(taken)


def body_of(client: socket.socket) -> tuple[bytes, bytes]:
    """Read an answer to its end; return its head and body."""
    with client.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    return head, body


def test_waiting_requests_do_not_delay_others(server: ServerProcess) -> None:
    """There are far more long polls and followed logs than threads; all get their answers in the end."""
    name = server.create(steps=1000, pause=1.0)
    with asked(server, f"{name}/status?wait=60", 60) as waiters, asked(server, f"{name}/log?follow", 30) as followers:
        time.sleep(0.5)
        assert median_ms(server, f"/artifacts/{name}/status") < 50
        assert median_ms(server, "/healthz") < 50
        assert requests.post(f"{server.url}/artifacts/{name}/cancel", timeout=5).status_code == 200
        for client in waiters:
            head, body = body_of(client)
            assert head.startswith(b"HTTP/1.1 200 ") and b'"cancelled"' in body
        for client in followers:
            head, body = body_of(client)
            assert head.startswith(b"HTTP/1.1 200 ") and body.startswith(b"begin\nstep 0\n")


def test_a_held_request_gets_the_same_headers(server: ServerProcess) -> None:
    """A client cannot notice that another thread answered."""
    name = server.create(steps=1, pause=0.8)
    with asked(server, f"{name}/status?wait=20", 1, headers="X-Request-Id: mine\r\n") as [client]:
        head, body = body_of(client)
    with asked(server, f"{name}/status", 1, headers="X-Request-Id: mine\r\n") as [client]:
        assert body_of(client) == (head, body)
    assert b"X-Request-Id: mine" in head and b"Connection: close" in head


def test_a_wait_ends_after_its_timeout(server: ServerProcess) -> None:
    """With the status of that moment."""
    name = server.create(steps=1000, pause=1.0)
    begun_s = time.monotonic()
    status = server.get(f"{name}/status", params={"wait": "1"}).json()
    assert 0.9 < time.monotonic() - begun_s < 5
    assert status["result"] == "in-progress"
    server.request("DELETE", name)


def test_a_wait_for_a_deleted_artifact_gets_404(server: ServerProcess) -> None:
    """As a request after the deletion does."""
    name = server.create(steps=1000, pause=1.0)
    with asked(server, f"{name}/status?wait=60", 1) as [client]:
        time.sleep(0.6)
        server.request("DELETE", name)
        assert body_of(client)[0].startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(("path", "headers"), [("data", ""), ("data/a", "Range: bytes=7-\r\n"), ("data/a", "")])
def test_slow_readers_hold_no_thread_and_get_every_byte(server: ServerProcess, path: str, headers: str) -> None:
    """Of a zip archive, a range and a whole file."""
    name = server.made(files=["a", "b"], text="0123456789abcdef", repeat=1 << 19)
    whole = requests.get(f"{server.url}/artifacts/{name}/{path}", timeout=30).content
    with asked(server, f"{name}/{path}", 20, headers=headers) as clients:
        time.sleep(0.5)
        assert median_ms(server, "/healthz") < 50
        for client in clients[:3]:
            assert body_of(client)[1] == (whole[7:] if headers else whole)


def test_slow_senders_do_not_delay_others(tmp_path: Path) -> None:
    """Each of a hundred incomplete requests holds a thread, but there are more threads."""
    begun = [
        "POST /artifacts HTTP/1.1\r\nHost: x\r\n",
        "POST /artifacts HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ]
    with serving(memory_argv, tmp_path) as server, ExitStack() as stack:
        for request in begun * 50:
            stack.enter_context(server.send(request.encode()))
        time.sleep(0.5)
        assert median_ms(server, "/healthz") < 50


def test_a_file_that_became_shorter_breaks_a_slow_download(server: ServerProcess) -> None:
    """For a range, the connection is reset, and the log has the reason; uWSGI itself sends whole files."""
    name = server.made(files=["shortened"], text="0123456789abcdef", repeat=1 << 20)
    [file] = server.log.parent.rglob("shortened")
    with asked(server, f"{name}/data/shortened", 1, headers="Range: bytes=7-\r\n") as [client]:
        time.sleep(0.5)
        os.truncate(file, 1)
        with pytest.raises(ConnectionResetError):
            body_of(client)
    until(lambda: "The file has become shorter." in server.log.read_text(), 10)


def test_held_requests_are_not_logged_as_failed(server: ServerProcess) -> None:
    """UWSGI takes a request without a status line for a failed one."""
    name = server.create(steps=1, pause=0.8)
    server.wait(name)
    assert f"{name}/status?wait" not in server.log.read_text()


def test_the_duration_of_a_held_request_includes_its_wait(server: ServerProcess) -> None:
    """The metrics count it as one request."""
    before = status_metrics(server)
    name = server.create(steps=1, pause=0.8)
    server.wait(name)
    count, total_s = (after - earlier for after, earlier in zip(status_metrics(server), before, strict=True))
    assert count == 1
    assert 0.7 < total_s < 5


def status_metrics(server: ServerProcess) -> tuple[float, float]:
    """Return the number of status requests and the sum of their durations."""
    text = requests.get(f"{server.url}/metrics", timeout=5).text
    pattern = r'^bonseyes_http_request_duration_seconds_%s{.*route="/artifacts/<name>/status".*} (\S+)$'
    count, total_s = (re.findall(pattern % part, text, re.MULTILINE) for part in ("count", "sum"))
    return sum(map(float, count)), sum(map(float, total_s))
