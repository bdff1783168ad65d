"""The headers that the gateway forwards, removes and adds in both directions."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from bonseyes_dagster.gateway.headers import (
    CONTENT_POLICY,
    PAGE_POLICY,
    answer_headers,
    content_of,
    request_headers,
)
from bonseyes_dagster.gateway.routes import match

TARGET = match("/containers/import/artifacts")
HOST = "127.0.0.1:8000"


def _forwarded(headers: dict[str, str], **options: object) -> CIMultiDict[str]:
    return request_headers(CIMultiDict(headers), TARGET, client="10.0.0.9", scheme="http", **options)  # type: ignore[arg-type]


def test_the_upstream_gets_forwarded_headers() -> None:
    """The prefix, the public host, the scheme and the client."""
    headers = _forwarded({"Host": "localhost:8000", "X-Forwarded-Prefix": "/forged"})
    assert headers["X-Forwarded-Prefix"] == "/containers/import"
    assert headers["X-Forwarded-Host"] == "localhost:8000"
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Forwarded-For"] == "10.0.0.9"
    assert "Host" not in headers


def test_forwarded_headers_of_a_proxy_are_kept() -> None:
    """TLS may end in a proxy before the gateway; an invalid scheme is ignored."""
    headers = _forwarded({"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"})
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["X-Forwarded-For"] == "1.2.3.4, 10.0.0.9"
    assert _forwarded({"X-Forwarded-Proto": "gopher"})["X-Forwarded-Proto"] == "http"


def test_hop_by_hop_headers_are_removed() -> None:
    """Also the headers that Connection names."""
    headers = _forwarded(
        {"Connection": "close, X-Mine", "X-Mine": "1", "TE": "trailers", "Transfer-Encoding": "chunked",
         "Upgrade": "h2c", "Keep-Alive": "1", "Expect": "100-continue", "X-Other": "2", "Content-Length": "3"}
    )  # fmt: skip
    assert {"Content-Length", "X-Other"} <= set(headers)
    assert not {"Connection", "X-Mine", "TE", "Transfer-Encoding", "Upgrade", "Keep-Alive", "Expect"} & set(headers)


def test_the_token_is_not_forwarded() -> None:
    """No container ever sees it; other cookies are forwarded."""
    headers = _forwarded(
        {"Authorization": "Bearer t", "Cookie": "a=1; bonseyes_x=secret; b=2"},
        secrets={"authorization", "cookie:bonseyes_x"},
    )
    assert "Authorization" not in headers
    assert headers["Cookie"] == "a=1; b=2"
    assert "Cookie" not in _forwarded({"Cookie": "bonseyes_x=s"}, secrets={"cookie:bonseyes_x"})


def test_answers_get_the_policies_and_no_cors() -> None:
    """Dagster's page keeps its own policy with its nonce; a tool's policy is replaced."""
    headers = answer_headers(
        CIMultiDict({"Access-Control-Allow-Origin": "*", "Connection": "close", "ETag": '"x"', "Server": "s"}),
        TARGET,
        "http://127.0.0.1:1",
        HOST,
    )
    assert "Access-Control-Allow-Origin" not in headers
    assert "Connection" not in headers
    assert headers["ETag"] == '"x"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == CONTENT_POLICY
    assert headers["Server"] == "bonseyes"
    for path, policy in (("/dagster/x", "mine"), ("/x", "mine"), ("/containers/import/x", CONTENT_POLICY)):
        own = answer_headers(CIMultiDict({"Content-Security-Policy": "mine"}), match(path), "http://127.0.0.1:1", HOST)
        assert own["Content-Security-Policy"] == policy
    assert (
        answer_headers(CIMultiDict(), match("/x"), "http://127.0.0.1:1", HOST)["Content-Security-Policy"] == PAGE_POLICY
    )


def test_set_cookie_headers_are_not_joined() -> None:
    """A client cannot split a joined Set-Cookie header."""
    several = CIMultiDict([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert answer_headers(several, TARGET, "http://127.0.0.1:1", HOST).getall("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    "path",
    ["artifacts/a/data", "artifacts/a/data/x.html", "runs/r/data", "artifacts/a/input-files/f",
     "artifacts/a/input_files/f", "artifacts/a/%64ata/x", "artifacts/a%2Fdata/x", "/artifacts//a/data"],
)  # fmt: skip
def test_files_of_tools_and_users_are_sandboxed_attachments(path: str) -> None:
    """Also HTML whose container sets no such headers."""
    target = match(f"/containers/import/{path}")
    assert content_of(target) == "file"
    headers = answer_headers(
        CIMultiDict({"Content-Type": "text/html", "Content-Disposition": 'inline; filename="x.html"',
                     "Content-Security-Policy": "script-src *"}),
        target,
        "http://127.0.0.1:1", HOST,
    )  # fmt: skip
    assert headers["Content-Disposition"] == 'attachment; filename="x.html"'
    assert headers["Content-Security-Policy"] == CONTENT_POLICY
    bare = answer_headers(CIMultiDict({"Content-Type": "text/html"}), target, "http://127.0.0.1:1", HOST)
    assert bare["Content-Disposition"] == "attachment"


@pytest.mark.parametrize("path", ["artifacts/a", "artifacts/a/status", "artifacts", "", "artifacts/a/database"])
def test_json_of_containers_is_not_an_attachment(path: str) -> None:
    """Statuses and descriptions are not files."""
    assert content_of(match(f"/containers/import/{path}")) == "data"
