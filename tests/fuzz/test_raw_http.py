"""Raw bytes, sent to a real uWSGI server: almost valid request lines, headers, lengths and chunks."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from random import Random

import pytest

from tests.contract.serving import ServerProcess, memory_argv, serving
from tests.fuzz.cases import CASES, fuzz
from tests.fuzz.mutation import mutated_bytes

_BODY = b'{"name": "a", "parameters": {}}'
_CHUNKED = b"1f\r\n" + _BODY + b"\r\n0\r\n\r\n"
_HEAD = b"POST /artifacts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_REQUESTS = (
    b"GET /artifacts?limit=2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /artifacts HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    _HEAD + b"Content-Length: 31\r\n\r\n" + _BODY,
    _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED,
    _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 31\r\n\r\n" + _CHUNKED,
)
_WORDS = (
    b"\r\n",
    b"\n",
    b": ",
    b" ",
    b"HTTP/1.0",
    b"http://x/",
    b"ffffffffffffffff",
    b"-1",
    b"\0",
    b"A" * 5000,
    b"%00",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serve the sample tool's in-memory twin with uWSGI."""
    with serving(memory_argv, tmp_path_factory.mktemp("server"), {"SAMPLE_KIND": "artifacts"}) as found:
        yield found


def exchange(server: ServerProcess, data: bytes) -> bytes:
    """Send the bytes and close the sending side. Return all bytes of the answer."""
    answer = b""
    with socket.create_connection(server.address, timeout=20) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"GET\r\n\r\n"])
def test_a_request_without_a_request_line_gets_403(server: ServerProcess, data: bytes) -> None:
    """UWSGI calls the application without a method and without a Host."""
    assert exchange(server, data).startswith(b"HTTP/1.0 403")


def test_no_bytes_make_the_server_fail(server: ServerProcess) -> None:
    """The server answers with a status below 500 or closes the connection. It answers the next request."""

    def make(random: Random) -> bytes:
        return mutated_bytes(random, random.choice(_REQUESTS), _WORDS)

    def check(data: bytes) -> None:
        answer = exchange(server, data)
        assert not re.match(rb"HTTP/1\.[01] 5", answer), answer[:2000]

    fuzz("raw requests", make, check, cases=max(CASES // 10, 1))
    assert server.get("/healthz").status_code == 200
    assert b"Traceback" not in server.log.read_bytes()
