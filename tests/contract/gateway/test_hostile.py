"""No request can cause a 5xx of the gateway, except 503 for a container that is down."""

from __future__ import annotations

import json
import time
from http.client import HTTPResponse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.gateway.processes import TOKEN, Gateway

ODD = ["http://[", "http://[::1", "http://]:x", "//[", "[", "", "null", "%", "%zz", "=;,", '"', "é", "-1", "\\"]
# Without headers that announce a body: the server would wait for it.
NAMES = [
    "Accept", "Authorization", "Connection", "Content-Encoding", "Content-Type", "Cookie", "Expect", "If-Range",
    "Origin", "Range", "Referer", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "TE", "Upgrade", "X-Forwarded-For",
    "X-Forwarded-Proto", "X-Mine", "X-Request-Id",
]  # fmt: skip
BEGINNINGS = ["/", "/containers/", "/containers/tool/", "/dagster/", "/login?next=", "/logout?", "/dagster?"]
VALUES = st.one_of(st.sampled_from(ODD).map(str.encode), st.binary(max_size=60))
ENDINGS = st.text("/.%#?;:@[]\\&=+25ceEfFaz~ \x00\x7fé\ud800", max_size=30)
FEW = settings(deadline=None, max_examples=150)


def _status(gateway: Gateway, raw: bytes) -> int:
    with gateway.connect() as connection:
        connection.sendall(raw)
        answer = HTTPResponse(connection)
        answer.begin()
        if answer.status >= 400:
            assert json.loads(answer.read())["error"]["code"]
        return answer.status


def _head(gateway: Gateway, method: str, path: str, *lines: bytes) -> bytes:
    first = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}".encode(errors="surrogatepass")
    return b"\r\n".join((first, *lines, b"", b""))


@pytest.mark.slow
@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site", "Cookie", "Authorization", "Host"])
def test_odd_headers_cause_no_5xx(gateway: Gateway, guarded: Gateway, name: str, value: str) -> None:
    """An Origin that is not a URL counts as another site."""
    line = f"{name}: {value}".encode()
    for each in (gateway, guarded):
        for method, path in (("POST", "/containers/tool/x"), ("POST", "/login"), ("GET", "/logout"), ("GET", "/")):
            assert _status(each, _head(each, method, path, line, b"Content-Length: 0")) < 500
    if name == "Origin":
        assert _status(gateway, _head(gateway, "POST", "/containers/tool/x", line, b"Content-Length: 0")) == 403


@pytest.mark.parametrize("value", ODD)
def test_an_odd_redirect_target_is_ignored(guarded: Gateway, value: str) -> None:
    """Neither in the URL of the login page nor in its form."""
    assert guarded.get("/login", params={"next": value}).status_code == 200
    assert 'name="next" value="/"' in guarded.get("/login", params={"next": value}).text
    form = f"token={TOKEN.replace(' ', '+')}&next={value}".encode()
    head = _head(guarded, "POST", "/login", b"Content-Length: %d" % len(form))
    with guarded.connect() as connection:
        connection.sendall(head + form)
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.getheader("Location")) == (303, "/")


@FEW
@given(st.sampled_from(NAMES), VALUES.filter(lambda value: not {10, 13} & {*value}), st.sampled_from(BEGINNINGS))
def test_no_header_causes_a_5xx(gateway: Gateway, name: str, value: bytes, path: str) -> None:
    """Whatever its value."""
    assert _status(gateway, _head(gateway, "GET", path, name.encode() + b": " + value)) < 500


@pytest.mark.slow
@FEW
@given(
    st.sampled_from(["Cookie: a=", "Authorization: Bearer ", "Authorization: "]),
    VALUES.filter(lambda v: not {10, 13} & {*v}),
)
def test_no_credentials_cause_a_5xx(guarded: Gateway, name: str, value: bytes) -> None:
    """They are only wrong."""
    assert _status(guarded, _head(guarded, "GET", "/containers/tool/x", name.encode() + value)) in (400, 401)


@FEW
@given(st.sampled_from(BEGINNINGS), ENDINGS)
def test_no_path_causes_a_5xx(gateway: Gateway, beginning: str, ending: str) -> None:
    """Nor does a query."""
    assert _status(gateway, _head(gateway, "GET", beginning + ending)) < 500


@pytest.mark.parametrize(
    ("name", "value"),
    [("Sec-WebSocket-Version", "12"), ("Sec-WebSocket-Version", "é"), ("Sec-WebSocket-Key", "short"),
     ("Sec-WebSocket-Key", "é"), ("Sec-WebSocket-Key", None), ("Sec-WebSocket-Version", None)],
)  # fmt: skip
def test_a_wrong_handshake_is_a_bad_request(gateway: Gateway, name: str, value: str | None) -> None:
    """Before an upstream gets the request."""
    lines = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
             "Sec-WebSocket-Key": "A" * 22 + "==", name: value}  # fmt: skip
    head = [f"{each}: {value}".encode() for each, value in lines.items() if value is not None]
    assert _status(gateway, _head(gateway, "GET", "/dagster/graphql", *head)) == 400


def test_a_refused_websocket_is_not_a_503(gateway: Gateway) -> None:
    """The upstream refuses it, but is not down."""
    lines = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
             b"Sec-WebSocket-Key: " + b"A" * 22 + b"==")  # fmt: skip
    status, _ = gateway.answer(_head(gateway, "GET", "/dagster/nope", *lines))
    assert status < 500


@pytest.mark.slow
def test_a_form_that_does_not_arrive_is_a_bad_request(gateway: Gateway) -> None:
    """After some seconds."""
    begun_s = time.monotonic()
    status, body = gateway.answer(gateway.head("POST", "/login", "Content-Length: 100") + b"token=")
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")
    assert time.monotonic() - begun_s < 15


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/login", "/containers/nope/"])
def test_a_body_with_a_wrong_chunk_causes_no_5xx(gateway: Gateway, path: str) -> None:
    """Only its first chunk is right."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("POST", path, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        time.sleep(0.3)
        connection.sendall(b"zz\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status in (400, 404)
        assert json.loads(answer.read())["error"]["code"] in ("bad_request", "not_found")
