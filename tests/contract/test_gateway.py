"""The gateway as a real process before a real upstream: streams, failures, access, websockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest
import requests

from tests.contract.gateway_upstream import BLOCK, Upstream, header
from tests.contract.gateways import EMBEDDED, NGINX, Gateway, has_nginx, read_all, running

TOKEN = "the token of the tests"
MIB = 2**20


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    """One upstream for all."""
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    """The upstream with clean counters."""
    shared_upstream.forget()
    return shared_upstream


@pytest.fixture(scope="module", params=[EMBEDDED, NGINX])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two gateways."""
    if request.param == NGINX and not has_nginx():
        pytest.skip("nginx is not installed: Debian's nginx-light is enough")
    return str(request.param)


@pytest.fixture(scope="module")
def gateway(kind: str, shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway without a token."""
    with running(kind, tmp_path_factory.mktemp("gateway"), shared_upstream) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def guarded(kind: str, shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a token."""
    with running(kind, tmp_path_factory.mktemp("guarded"), shared_upstream, BONSEYES_TOKEN=TOKEN) as gateway:
        yield gateway


# --- what goes where


def test_a_container_sees_its_own_path_and_what_was_stripped(gateway: Gateway) -> None:
    """Percent-encoding and query arrive as they were written."""
    answer = gateway.get("/containers/tool/artifacts/a%2Fb/x%20y?q=%2F&q=%3F").json()
    assert answer["path"] == "/artifacts/a%2Fb/x%20y?q=%2F&q=%3F"
    assert header(answer, "X-Forwarded-Prefix") == "/containers/tool"
    assert header(answer, "X-Forwarded-Host") == f"127.0.0.1:{gateway.port}"
    assert header(answer, "X-Forwarded-Proto") == "http"
    assert header(answer, "X-Forwarded-For") == "127.0.0.1"
    assert header(answer, "X-Request-Id")


def test_nothing_is_added_to_a_request(gateway: Gateway) -> None:
    """No Accept-Encoding that would have the upstream compress, no User-Agent, no Content-Type."""
    raw = gateway.send(
        f"GET /containers/tool/x HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nConnection: close\r\n\r\n".encode()
    )
    names = {name.lower() for name, _ in json.loads(raw.partition(b"\r\n\r\n")[2])["headers"]}
    assert not names & {"accept", "accept-encoding", "user-agent", "content-type", "content-length"}


def test_a_page_is_redirected_to_its_slash(gateway: Gateway) -> None:
    """With its query; relative links below need the slash."""
    answer = gateway.get("/dagster?x=1")
    assert (answer.status_code, answer.headers["Location"]) == (308, "/dagster/?x=1")


def test_a_location_is_led_back(gateway: Gateway) -> None:
    """The upstream's own address would mean nothing to the client."""
    answer = gateway.get("/containers/tool/redirect")
    assert (answer.status_code, answer.headers["Location"]) == (201, "/containers/tool/artifacts/made")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/containers/unknown/", 404, "not_found"),
        ("/containers/evil.example/", 404, "not_found"),
        ("/containers/tool/%2e%2e/x", 404, "not_found"),
        ("/containers/down/", 503, "unavailable"),
    ],
)
def test_what_is_not_there_is_said_in_json(gateway: Gateway, path: str, status: int, code: str) -> None:
    """Unknown 404, down 503, with our policies and a request id."""
    answer = gateway.get(path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "raw",
    [
        b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: x\r\n",
        b"nonsense\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX: \x00\r\n",
    ],
)
def test_what_is_not_http_is_a_bad_request_in_json(gateway: Gateway, raw: bytes) -> None:
    """Never an HTML page, never a 5xx, never the smuggled second reading of it."""
    status, body = gateway.answer(raw.replace(b"{port}", str(gateway.port).encode()) + b"Connection: close\r\n\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_addresses_are_read_again(tmp_path: Path, upstream: Upstream) -> None:
    """The embedded gateway finds a container that comes later without a restart; nginx is told by a new image."""
    with running(EMBEDDED, tmp_path, upstream) as gateway:
        addresses = tmp_path / "addresses.json"
        before = addresses.read_text()
        addresses.write_text(json.dumps({**json.loads(before), "later": f"http://127.0.0.1:{upstream.port}"}))
        assert gateway.get("/containers/later/x").status_code == 200
        addresses.write_text(before)
        assert gateway.get("/containers/later/x").status_code == 404


# --- streams


def test_large_bodies_pass_in_flat_memory(gateway: Gateway) -> None:
    """Both ways, byte for byte, with Content-Length, and undecoded whatever Content-Encoding says."""
    size = 256 * MIB
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

    answer = requests.put(f"{gateway.url}/containers/tool/x", data=body(), timeout=60)
    seen = answer.json()
    assert (seen["size"], seen["sha256"]) == (size, expected.hexdigest())
    assert header(seen, "Transfer-Encoding") == "chunked"
    assert gateway.memory_bytes() < 150 * MIB


def test_a_length_stays_a_length(gateway: Gateway) -> None:
    """UWSGI reads bodies by Content-Length."""
    seen = requests.post(f"{gateway.url}/containers/tool/x", data=b"x" * 1000, timeout=20).json()
    assert header(seen, "Content-Length") == "1000"
    assert header(seen, "Transfer-Encoding") is None


def test_an_encoded_request_body_is_not_decoded(gateway: Gateway) -> None:
    """What is not for us is not opened."""
    body = b"not gzip at all"
    seen = requests.post(
        f"{gateway.url}/containers/tool/x", data=body, headers={"Content-Encoding": "gzip"}, timeout=20
    ).json()
    assert (seen["size"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_head_tells_the_length_without_the_body(gateway: Gateway) -> None:
    """And leaves the connection usable."""
    with requests.Session() as session:
        answer = session.head(f"{gateway.url}/containers/tool/bytes?n=12345", timeout=20)
        assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, "12345", b"")
        assert session.get(f"{gateway.url}/containers/tool/x", timeout=20).status_code == 200


def test_chunks_pass_as_they_come(gateway: Gateway) -> None:
    """A followed log is of no use in one piece at the end."""
    begun_s = time.monotonic()
    with gateway.get("/containers/tool/chunks", stream=True) as answer:
        chunks = answer.iter_content(None)
        assert next(chunks) == b"chunk 0\n"
        assert time.monotonic() - begun_s < 0.5
        assert b"".join(chunks) == b"chunk 1\nchunk 2\n"


@pytest.mark.parametrize("how", ["length", "chunked", "reset"])
def test_a_broken_stream_breaks_at_the_client_too(gateway: Gateway, how: str) -> None:
    """Never cleanly short: a client must be able to tell."""
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        _ = gateway.get(f"/containers/tool/short?how={how}").content


def test_a_broken_stream_is_reset_for_a_client_of_http_1_0(gateway: Gateway) -> None:
    """It knows no chunks: for it, an orderly end would be the end of the body."""
    if gateway.kind == NGINX:
        pytest.skip("nginx cannot reset a connection; such clients see what has no length end early")
    with pytest.raises(ConnectionResetError):
        gateway.send(
            f"GET /containers/tool/short?how=chunked HTTP/1.0\r\nHost: 127.0.0.1:{gateway.port}\r\n\r\n".encode()
        )


def test_a_body_that_ends_with_its_connection_is_whole(gateway: Gateway) -> None:
    """HTTP/1.0 servers know no other way, and theirs become chunked ones here."""
    assert gateway.get("/containers/tool/raw").content == b"to the end"


def test_a_client_of_http_1_0_is_served(gateway: Gateway) -> None:
    """Without chunks, which it does not know."""
    raw = gateway.send(f"GET /containers/tool/chunks HTTP/1.0\r\nHost: 127.0.0.1:{gateway.port}\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"chunk 0\nchunk 1\nchunk 2\n"


@pytest.mark.parametrize("path", ["follow", "wait?s=60"])
def test_a_client_that_leaves_takes_the_upstream_request_along(gateway: Gateway, upstream: Upstream, path: str) -> None:
    """Else each closed tab would hold a thread of a container."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("GET", f"/containers/tool/{path}"))
        assert upstream.began.wait(10)
    assert upstream.cancelled.wait(10)


def test_a_client_that_leaves_amid_its_upload_breaks_it_off(gateway: Gateway, upstream: Upstream) -> None:
    """A container must not take half a file for a whole one."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("POST", "/containers/tool/swallow", "Content-Length: 1000000") + b"x" * 1000)
        assert upstream.began.wait(10)
    assert upstream.cancelled.wait(10)


def test_a_slow_reader_slows_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    """What it does not take yet is not fetched yet, beyond what sockets hold."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("GET", f"/containers/tool/bytes?n={2**30}"))
        connection.recv(1000)
        time.sleep(1.5)
        assert upstream.sent_bytes < 64 * MIB
    assert upstream.cancelled.wait(10)


def test_a_slow_upstream_slows_the_sender(gateway: Gateway, upstream: Upstream) -> None:
    """The gateway is no buffer for uploads."""
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
    """413 while the upload is under way, as far as TCP allows."""
    answer = requests.post(f"{gateway.url}/containers/tool/refuse", data=b"x" * 200_000, timeout=20)
    assert answer.status_code == 413


def test_expect_continue_is_answered_before_the_body(gateway: Gateway) -> None:
    """Curl waits a second for it otherwise."""
    head = (
        f"POST /containers/tool/x HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nContent-Length: 3\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with gateway.connect() as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert b'"size": 3' in read_all(connection)


def test_hundreds_of_long_polls_wait_at_once(gateway: Gateway, upstream: Upstream) -> None:
    """And others are answered meanwhile."""

    async def poll(session: aiohttp.ClientSession) -> int:
        async with session.get(f"{gateway.url}/containers/tool/wait?s=3") as answer:
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
            assert time.monotonic() - begun_s < 1
            return await asyncio.gather(*polls)

    assert asyncio.run(asyncio.wait_for(run(), 60)) == [200] * 400


# --- access


def test_a_foreign_host_reaches_nothing(gateway: Gateway) -> None:
    """DNS rebinding: a page of evil.example whose name now means this machine."""
    for path in ("/", "/healthz", "/containers/tool/x", "/dagster/graphql"):
        answer = gateway.get(path, headers={"Host": f"evil.example:{gateway.port}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_a_foreign_page_changes_nothing(gateway: Gateway, headers: dict[str, str]) -> None:
    """Neither with an unsafe method, nor with a GET that Dagster would execute."""
    for method in ("POST", "DELETE", "PUT", "PATCH"):
        answer = requests.request(method, f"{gateway.url}/containers/tool/x", headers=headers, timeout=20)
        assert answer.status_code == 403
    assert gateway.get("/dagster/graphql?query=mutation", headers=headers).status_code == 403
    assert gateway.get("/containers/tool/x", headers=headers).status_code == 200


def test_no_answer_allows_another_site_to_read(gateway: Gateway) -> None:
    """Also when the upstream, as Dagster's, would."""
    answer = requests.options(
        f"{gateway.url}/containers/tool/x",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"},
        timeout=20,
    )
    assert answer.headers["X-Seen"] == "yes"
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/containers/tool/x", "/dagster/graphql", "/containers/nope/", "/logout"]
)
def test_with_a_token_nothing_answers_without_it(guarded: Gateway, path: str) -> None:
    """Not even whether something exists."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "bonseyes_x=1"}):
        answer = guarded.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_token_opens_and_ends_at_the_gateway(guarded: Gateway) -> None:
    """No container gets to see it."""
    answer = guarded.get("/containers/tool/x", headers={"Authorization": f"Bearer {TOKEN}", "Cookie": "mine=1"})
    assert answer.status_code == 200
    assert TOKEN not in answer.text
    assert header(answer.json(), "Cookie") == "mine=1"


def test_a_browser_signs_in_and_out(guarded: Gateway) -> None:
    """A page is sent to /login and back; the cookie is HttpOnly, SameSite=Strict, not the token, and can be ended."""
    page = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    answer = guarded.get("/containers/tool/x?a=1", headers=page)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/containers/tool/x%3Fa%3D1")
    form = guarded.get(answer.headers["Location"], headers=page)
    assert (form.status_code, form.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert 'value="/containers/tool/x?a=1"' in form.text
    with requests.Session() as session:
        fields = {"token": TOKEN, "next": "/containers/tool/x?a=1"}
        answer = session.post(f"{guarded.url}/login", data=fields, allow_redirects=False, timeout=20)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/containers/tool/x?a=1")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert session.get(f"{guarded.url}/containers/tool/x", timeout=20).status_code == 200
        assert header(session.get(f"{guarded.url}/containers/tool/x", timeout=20).json(), "Cookie") is None
        copied = dict(session.cookies)
        session.post(f"{guarded.url}/logout", allow_redirects=False, timeout=20)
        assert session.get(f"{guarded.url}/containers/tool/x", timeout=20).status_code == 401
    assert guarded.get("/containers/tool/x", cookies=copied).status_code == 401


def test_a_wrong_token_is_slow_and_a_page_for_browsers(guarded: Gateway) -> None:
    """Guessing takes a second each, one after the other."""
    begun_s = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        answers = list(
            pool.map(lambda _: requests.post(f"{guarded.url}/login", data={"token": "no"}, timeout=20), range(3))
        )
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert time.monotonic() - begun_s > 2.9
    page = requests.post(f"{guarded.url}/login", data={"token": "x"}, headers={"Accept": "text/html"}, timeout=20)
    assert (page.status_code, page.headers["Content-Type"]) == (401, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    "target", ["http://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "/a\nb"]
)
def test_signing_in_leads_nowhere_else(guarded: Gateway, target: str) -> None:
    """An open redirect would lend our name to somebody else's login page."""
    fields = {"token": TOKEN, "next": target}
    answer = requests.post(f"{guarded.url}/login", data=fields, allow_redirects=False, timeout=20)
    assert answer.headers["Location"] == "/"


def test_another_site_cannot_sign_us_in_or_out(guarded: Gateway) -> None:
    """Login CSRF, and a nuisance."""
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert requests.post(f"{guarded.url}/login", data={"token": TOKEN}, headers=foreign, timeout=20).status_code == 403
    assert guarded.get("/logout", headers=foreign).status_code == 403


# --- websockets


async def _echo(url: str, **options: object) -> tuple[str | None, str, bytes]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, **options) as socket_:  # type: ignore[arg-type]
        await socket_.send_str("hello")
        text = await socket_.receive_str(timeout=10)
        await socket_.send_bytes(BLOCK)
        return socket_.protocol, text, await socket_.receive_bytes(timeout=10)


def test_a_websocket_passes_with_its_subprotocol(gateway: Gateway) -> None:
    """Dagster's UI speaks graphql-ws; large messages pass."""
    protocol, text, data = asyncio.run(_echo(f"{gateway.url}/dagster/graphql", protocols=["graphql-ws"]))
    assert (protocol, text, data) == ("graphql-ws", "- hello", BLOCK)


def test_a_websocket_ends_on_both_sides(gateway: Gateway, upstream: Upstream) -> None:
    """The upstream's close code reaches the client; the client's leaving reaches the upstream."""

    async def run() -> int | None:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{gateway.url}/dagster/graphql") as socket_:
                await socket_.send_str("close")
                await socket_.receive(timeout=10)
                code = socket_.close_code
            upstream.forget()
            async with session.ws_connect(f"{gateway.url}/dagster/graphql") as socket_:
                await socket_.send_str("hello")
            return code

    assert asyncio.run(run()) == 4001
    assert upstream.cancelled.wait(10)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_websocket_of_another_site_is_refused(gateway: Gateway, headers: dict[str, str]) -> None:
    """Browsers let any page open one, and send its cookies along."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(_echo(f"{gateway.url}/dagster/graphql", headers=headers))
    assert refused.value.status == 403


def test_a_websocket_needs_the_token(guarded: Gateway) -> None:
    """And the token ends at the gateway there too."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(_echo(f"{guarded.url}/dagster/graphql"))
    assert refused.value.status == 401
    _, text, _ = asyncio.run(_echo(f"{guarded.url}/dagster/graphql", headers={"Authorization": f"Bearer {TOKEN}"}))
    assert text == "- hello"


def test_containers_take_no_websockets(gateway: Gateway) -> None:
    """Only Dagster's route does."""
    with pytest.raises(aiohttp.WSServerHandshakeError):
        asyncio.run(_echo(f"{gateway.url}/containers/tool/ws"))


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_soon_although_somebody_waits(kind: str, tmp_path: Path, upstream: Upstream, how: str) -> None:
    """Long polls and followed logs do not hold it."""
    with (
        running(kind, tmp_path, upstream) as gateway,
        gateway.connect() as connection,
    ):
        connection.sendall(gateway.head("GET", "/containers/tool/wait?s=60"))
        assert upstream.began.wait(10)
        begun_s = time.monotonic()
        gateway.process.send_signal(signal.Signals[how])
        assert gateway.process.wait(15) == 0
        assert time.monotonic() - begun_s < 8


@pytest.mark.parametrize(
    ("arguments", "environ", "why"),
    [
        (["--bind", "0.0.0.0:8000"], {}, "BONSEYES_TOKEN"),
        (["--bind", "nonsense"], {}, "HOST:PORT"),
        (["--bind", "127.0.0.1:1"], {"BONSEYES_ADDRESSES": ""}, "BONSEYES_ADDRESSES"),
    ],
)
def test_it_refuses_to_start_wrong(arguments: list[str], environ: dict[str, str], why: str) -> None:
    """With one sentence and a status, before it listens."""
    environ = {**os.environ, "BONSEYES_ADDRESSES": "/tmp/addresses.json", "BONSEYES_TOKEN": "", **environ}
    argv = [sys.executable, "-m", "bonseyes_dagster.gateway", *arguments]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
