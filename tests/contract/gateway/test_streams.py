"""Bodies in both directions: complete, streamed, in constant memory, and never shortened silently."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator
from http.client import HTTPResponse

import aiohttp
import pytest
import requests

from tests.contract.gateway.processes import EMBEDDED, IMAGE, Gateway, read_all
from tests.contract.gateway.upstream import BLOCK, Upstream, header

MIB = 2**20


@pytest.mark.timeout(900)
def test_large_bodies_pass_in_constant_memory(gateway: Gateway) -> None:
    """Both ways, byte for byte, with Content-Length, and not decoded, whatever Content-Encoding says."""
    size = 3 * 1024 * MIB if gateway.kind == IMAGE else 256 * MIB
    digest, got = hashlib.sha256(), 0
    with gateway.get(f"/containers/tool/bytes?n={size}", stream=True) as answer:
        assert answer.headers["Content-Length"] == str(size)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "Transfer-Encoding" not in answer.headers
        while chunk := answer.raw.read(MIB, decode_content=False):
            digest.update(chunk)
            got += len(chunk)
    expected = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        expected.update(BLOCK)
    assert (got, digest.hexdigest()) == (size, expected.hexdigest())

    def body() -> Iterator[bytes]:
        for _ in range(size // len(BLOCK)):
            yield BLOCK

    answer = requests.put(f"{gateway.url}/containers/tool/x", data=body(), timeout=120)
    seen = answer.json()
    assert (seen["size"], seen["sha256"]) == (size, expected.hexdigest())
    assert header(seen, "Transfer-Encoding") == "chunked"
    assert gateway.memory_bytes() < 150 * MIB


def test_content_length_is_kept(gateway: Gateway) -> None:
    """UWSGI reads bodies by Content-Length."""
    seen = requests.post(f"{gateway.url}/containers/tool/x", data=b"x" * 1000, timeout=20).json()
    assert header(seen, "Content-Length") == "1000"
    assert header(seen, "Transfer-Encoding") is None


def test_an_encoded_request_body_is_not_decoded(gateway: Gateway) -> None:
    """Only the upstream decodes it."""
    body = b"not gzip at all"
    seen = requests.post(
        f"{gateway.url}/containers/tool/x", data=body, headers={"Content-Encoding": "gzip"}, timeout=20
    ).json()
    assert (seen["size"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_head_has_the_length_without_the_body(gateway: Gateway) -> None:
    """And leaves the connection usable."""
    with requests.Session() as session:
        answer = session.head(f"{gateway.url}/containers/tool/bytes?n=12345", timeout=20)
        assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, "12345", b"")
        assert session.get(f"{gateway.url}/containers/tool/x", timeout=20).status_code == 200


def test_chunks_pass_as_they_come(gateway: Gateway, upstream: Upstream) -> None:
    """A followed log in one piece at its end would be useless."""
    with gateway.get("/containers/tool/chunks?stepwise=1", stream=True, timeout_s=30) as answer:
        chunks = answer.iter_content(None)
        assert next(chunks) == b"chunk 0\n"
        upstream.taken = 3
        assert b"".join(chunks) == b"chunk 1\nchunk 2\n"


@pytest.mark.parametrize("how", ["length", "chunked", "reset"])
def test_a_broken_stream_breaks_at_the_client_too(gateway: Gateway, how: str) -> None:
    """A client must notice that the body is incomplete."""
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        # A unix socket cannot be reset.
        _ = gateway.get(f"/containers/{'remote' if how == 'reset' else 'tool'}/short?how={how}").content


def test_a_broken_stream_is_reset_for_a_client_of_http_1_0(gateway: Gateway) -> None:
    """HTTP/1.0 has no chunks: an orderly end would mean the end of the body."""
    if gateway.kind != EMBEDDED:
        pytest.skip("nginx cannot reset a connection; such clients see what has no length end early")
    with pytest.raises(ConnectionResetError):
        gateway.send(
            f"GET /containers/tool/short?how=chunked HTTP/1.0\r\nHost: 127.0.0.1:{gateway.port}\r\n\r\n".encode()
        )


def test_a_body_that_ends_with_its_connection_is_complete(gateway: Gateway) -> None:
    """HTTP/1.0 servers end bodies this way; the gateway makes chunked bodies of them."""
    assert gateway.get("/containers/tool/raw").content == b"to the end"


def test_a_client_of_http_1_0_is_served(gateway: Gateway) -> None:
    """Without chunks, which HTTP/1.0 does not have."""
    raw = gateway.send(f"GET /containers/tool/chunks HTTP/1.0\r\nHost: 127.0.0.1:{gateway.port}\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"chunk 0\nchunk 1\nchunk 2\n"


@pytest.mark.parametrize("path", ["follow", "wait?s=60"])
def test_a_client_that_leaves_ends_the_upstream_request(gateway: Gateway, upstream: Upstream, path: str) -> None:
    """Else each closed tab would hold a thread of a container."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("GET", f"/containers/tool/{path}"))
        assert upstream.began.wait(10)
    assert upstream.cancelled.wait(10)


def test_a_client_that_leaves_during_its_upload_breaks_it_off(gateway: Gateway, upstream: Upstream) -> None:
    """A container must not take half a file for the whole."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("POST", "/containers/tool/swallow", "Content-Length: 1000000") + b"x" * 1000)
        assert upstream.began.wait(10)
    assert upstream.cancelled.wait(10)


def test_a_slow_reader_slows_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    """The gateway reads ahead no more than the sockets hold."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("GET", f"/containers/tool/bytes?n={2**30}"))
        connection.recv(1000)
        time.sleep(1.5)
        assert upstream.sent_bytes < 64 * MIB
    assert upstream.cancelled.wait(10)


def test_a_slow_upstream_slows_the_sender(gateway: Gateway, upstream: Upstream) -> None:
    """The gateway does not buffer uploads."""
    sent = 0
    with gateway.connect() as connection:
        connection.sendall(gateway.head("POST", "/containers/tool/swallow", f"Content-Length: {2**30}") + b"x")
        assert upstream.began.wait(10)
        connection.setblocking(False)
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            try:
                sent += connection.send(BLOCK)
            except BlockingIOError:
                time.sleep(0.05)
    assert sent < 64 * MIB


def test_an_answer_before_the_body_reaches_the_client(gateway: Gateway) -> None:
    """For example 413 during the upload, as far as TCP allows."""
    answer = requests.post(f"{gateway.url}/containers/tool/refuse", data=b"x" * 200_000, timeout=20)
    assert answer.status_code == 413


def test_expect_continue_is_answered_before_the_body(gateway: Gateway) -> None:
    """Curl would wait one second for it."""
    head = (
        f"POST /containers/tool/x HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nContent-Length: 3\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with gateway.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert b'"size": 3' in read_all(connection)


@pytest.mark.slow
def test_hundreds_of_long_polls_wait_at_once(gateway: Gateway, upstream: Upstream) -> None:
    """And other requests are answered meanwhile."""

    async def poll(session: aiohttp.ClientSession) -> int:
        async with session.get(f"{gateway.url}/containers/tool/wait?s=20") as answer:
            await answer.read()
            return answer.status

    async def run() -> list[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            polls = [asyncio.create_task(poll(session)) for _ in range(400)]
            while upstream.waiting < 400:
                await asyncio.sleep(0.05)
            begun_s = time.monotonic()
            async with session.get(f"{gateway.url}/containers/tool/x") as answer:
                assert answer.status == 200
            assert time.monotonic() - begun_s < 10
            return await asyncio.gather(*polls)

    assert asyncio.run(asyncio.wait_for(run(), 90)) == [200] * 400


def test_expect_continue_works_with_a_chunked_body(gateway: Gateway) -> None:
    """The length of the body is unknown."""
    with gateway.connect() as connection:
        lines = ("Transfer-Encoding: chunked", "Expect: 100-continue", "Connection: close")
        connection.sendall(gateway.head("POST", "/containers/tool/x", *lines))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"3\r\nabc\r\n0\r\n\r\n")
        assert b'"size": 3' in read_all(connection)


@pytest.mark.parametrize("path", ["/containers/nope/x", "/containers/down/x"])
def test_an_upload_to_a_missing_container_is_answered_at_once(gateway: Gateway, path: str) -> None:
    """Before the body arrives, and without storing it."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("POST", path, f"Content-Length: {2**34}") + b"x" * 10_000)
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status in (404, 503)
        assert json.loads(answer.read())["error"]["code"] in ("not_found", "unavailable")


def test_the_upstream_handles_ranges_and_conditions(gateway: Gateway) -> None:
    """The gateway does not change the body of an answer."""
    given = {
        "Range": "bytes=0-1",
        "If-None-Match": '"e"',
        "If-Range": '"e"',
        "If-Modified-Since": "Thu, 01 Jan 2026 00:00:00 GMT",
    }
    seen = gateway.get("/containers/tool/x", headers=given)
    assert seen.status_code == 200
    assert {name: header(seen.json(), name) for name in given} == given
    with gateway.get("/containers/tool/bytes?n=1000", headers=given, stream=True) as whole:
        assert (whole.status_code, whole.headers["Content-Length"]) == (200, "1000")


def test_a_line_of_a_followed_log_comes_at_once(gateway: Gateway, upstream: Upstream) -> None:
    """A line of 7 bytes must not wait until a buffer is full."""
    with gateway.get("/containers/tool/follow?stepwise=1", stream=True, timeout_s=30) as answer:
        for number in range(3):
            assert answer.raw.read(7, decode_content=False) == b"a line\n"
            upstream.taken = number + 1


def test_a_slow_small_body_holds_no_thread_of_a_container(kind: str, gateway: Gateway, upstream: Upstream) -> None:
    """The embedded gateway reads it completely first. nginx streams bodies of any size."""
    if kind != EMBEDDED:
        pytest.skip("only the embedded gateway collects small bodies")
    with gateway.connect() as connection:
        connection.sendall(gateway.head("POST", "/containers/tool/swallow", "Content-Length: 6") + b"abc")
        time.sleep(0.5)
        assert not upstream.began.is_set()
        connection.sendall(b"def")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
