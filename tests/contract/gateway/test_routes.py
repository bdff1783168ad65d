"""What goes where, with which headers, and what is said when it cannot."""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPMessage, HTTPResponse

import pytest
import requests

from tests.contract.gateway.processes import EMBEDDED, Gateway
from tests.contract.gateway.upstream import Upstream, header

MIB = 2**20


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


@pytest.mark.parametrize(
    ("path", "seen", "prefix"),
    [
        ("/x%2F%2e%2Ex/%C3%A9//y/?q=%2e%2e&r=a+b&&", "/x%2F%2e%2Ex/%C3%A9//y/?q=%2e%2e&r=a+b&&", None),
        ("/containers/tool", "/", "/containers/tool"),
        ("/containers/tool//a//b/", "//a//b/", "/containers/tool"),
        ("/containers/t%6fol/a;b=1/$&'()*+,=:@!~", "/a;b=1/$&'()*+,=:@!~", "/containers/tool"),
        ("/containers/visualization/data/a%2Fb", "/data/a%2Fb", "/containers/visualization"),
        ("/dagster/x%20y?a=1", "/dagster/x%20y?a=1", "/dagster"),
        ("/dagsterish", "/dagsterish", None),
        ("/containers/", "/containers/", None),
    ],
)
def test_paths_arrive_as_they_were_written(gateway: Gateway, path: str, seen: str, prefix: str | None) -> None:
    """Byte for byte, on each route: neither decoded nor tidied, whatever a server does to find its way."""
    answer = json.loads(gateway.answer(gateway.head("GET", path))[1])
    assert (answer["path"], header(answer, "X-Forwarded-Prefix")) == (seen, prefix)


def test_a_path_that_is_not_ascii_is_a_bad_request(gateway: Gateway) -> None:
    """It has to be percent-encoded; what an upstream would make of it nobody knows."""
    status, body = gateway.answer(f"GET /containers/tool/é HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n\r\n".encode())
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_method_passes(gateway: Gateway, upstream: Upstream, method: str) -> None:
    """With its body, if it has one."""
    body = b"x" * 10 if method in ("POST", "PUT", "PATCH", "DELETE") else None
    answer = requests.request(method, f"{gateway.url}/containers/tool/x", data=body, timeout=20)
    assert (answer.status_code, answer.headers["X-Seen"]) == (200, "yes")
    if method != "HEAD":
        assert (answer.json()["method"], answer.json()["size"]) == (method, len(body or b""))


@pytest.mark.parametrize("method", ["FOO", "PROPFIND"])
def test_a_method_that_nobody_knows_is_no_fault_of_ours(gateway: Gateway, method: str) -> None:
    """It passes, or is a bad request."""
    status, _ = gateway.answer(gateway.head(method, "/containers/tool/x"))
    assert status in (200, 400, 405)


def test_what_speaks_of_the_connection_or_forges_ends_here(gateway: Gateway) -> None:
    """WSGI reads X_Forwarded_Prefix as X-Forwarded-Prefix; the offer of HTTP/2 is not for the upstream."""
    lines = [
        "Connection: close, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "TE: trailers", "Keep-Alive: timeout=5", "Proxy-Authorization: Basic x", "Proxy-Connection: keep-alive",
        "X-Forwarded-Prefix: /forged", "X_Forwarded_Prefix: /forged", "X-Forwarded-Host: evil.example",
        "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Forwarded: for=evil", "X-Gateway-Question: pass",
        "X-Gateway-Containers: evil", "X-Mine: 1",
    ]  # fmt: skip
    seen = json.loads(gateway.answer(gateway.head("GET", "/containers/tool/x", *lines))[1])
    names = {name.lower() for name, _ in seen["headers"]}
    assert "x-mine" in names
    assert not names & {"upgrade", "http2-settings", "te", "keep-alive", "proxy-authorization", "proxy-connection",
                        "forwarded", "x_forwarded_prefix"}  # fmt: skip
    assert header(seen, "X-Forwarded-Prefix") == "/containers/tool"
    assert header(seen, "X-Forwarded-Host") == f"127.0.0.1:{gateway.port}"
    assert header(seen, "X-Forwarded-For") == "1.2.3.4, 127.0.0.1"
    assert header(seen, "X-Forwarded-Proto") == "https"


def test_a_request_keeps_its_id(gateway: Gateway) -> None:
    """The client's, when it is one; upstreams and errors tell it."""
    assert (
        header(gateway.get("/containers/tool/x", headers={"X-Request-Id": "mine.1"}).json(), "X-Request-Id") == "mine.1"
    )
    assert (
        gateway.get("/containers/nope/", headers={"X-Request-Id": "mine.2"}).json()["error"]["request_id"] == "mine.2"
    )
    assert (
        gateway.get("/containers/down/", headers={"X-Request-Id": "mine.3"}).json()["error"]["request_id"] == "mine.3"
    )
    forged = gateway.get("/containers/nope/", headers={"X-Request-Id": '"}, {"'}).json()["error"]["request_id"]
    assert forged
    assert '"' not in forged


def test_answers_get_our_policies_once(gateway: Gateway) -> None:
    """The upstream's own words on the same matters are replaced, not joined."""
    answer = gateway.get("/x")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    page = gateway.get("/page.html")
    assert page.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/dagster/x", "/containers/visualization/x", "/x"])
def test_our_pages_may_run(gateway: Gateway, path: str) -> None:
    """Dagster's, TensorBoard's and the dashboard's, under policies of their own if they have one."""
    assert gateway.get(path).headers["Content-Security-Policy"].startswith("default-src 'self'")
    own = gateway.get(f"{path}/artifacts/a/data/page.html")
    assert own.headers["Content-Security-Policy"] == "script-src *"
    assert own.headers["Content-Disposition"].startswith("inline")


@pytest.mark.parametrize(
    "path",
    [
        "artifacts/a/data/page.html",
        "artifacts/a/%64ata/page.html",
        "artifacts/a/d%61%74a/page.html",
        "artifacts/a%2fdata/page.html",
        "artifacts%2Fa%2Fdata%2Fpage.html",
        "%61rtifacts/a/input%2dfiles/page.html",
        "runs/r/input_files/page.html",
        "/artifacts//a/data//page.html",
    ],
)
def test_what_a_tool_made_is_no_page_of_ours(gateway: Gateway, path: str) -> None:
    """It is sandboxed and saved, whatever its container said, and however its path is spelled."""
    status, lines, _ = _answer(gateway, f"/containers/tool/{path}")
    assert status == 200
    assert lines["Content-Disposition"] == 'attachment; filename="page.html"'
    assert lines["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert lines["X-Content-Type-Options"] == "nosniff"


def test_json_is_no_attachment(gateway: Gateway) -> None:
    """An error in the place of a file is for people to read."""
    answer = gateway.get("/containers/tool/artifacts/a/data/x")
    assert "Content-Disposition" not in answer.headers
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize("path", ["/containers/tool/subvert", "/containers/t%6fol/subvert"])
def test_a_tool_has_no_pages(gateway: Gateway, path: str) -> None:
    """Or a subverted one, without a network of its own, would reach everything by way of a browser."""
    answer = gateway.get(path)
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    names = {name.lower() for name in answer.headers}
    assert not names & {"content-security-policy-report-only", "nel", "refresh", "report-to", "reporting-endpoints"}


@pytest.mark.parametrize(
    "location",
    [
        "http://evil.example/?secret",
        "//evil.example/",
        "\\\\evil.example",
        "http:evil",
        "javascript:alert(1)",
        "http://[",
        "http://{gateway}/dagster/graphql?query=mutation",
        "http://{gateway}/containers/toolbox/",
        "http://{gateway}/containers/tool/../../dagster/",
        "http://{gateway}@evil.example/containers/tool/x",
        "http://{gateway}.evil.example/containers/tool/x",
        "/../../dagster/graphql",
        "/containers/tool/../../dagster/graphql",
        "/containers/tool/%2e%2E/x",
        "/.%2e/x",
        "/..\\x",
        "/.\t./x",
        "/containers/tool/..",
        "/..?x",
        "../../dagster/",
        "/é",
    ],
)
def test_a_tool_leads_nowhere_else(gateway: Gateway, location: str) -> None:
    """A page of ours that asks a tool would follow, and ask Dagster, say, in its own name."""
    to = location.replace("{gateway}", f"127.0.0.1:{gateway.port}")
    answer = gateway.get("/containers/tool/lead", params={"to": to})
    assert (answer.status_code, answer.headers.get("Location")) == (307, None)
    if location.isascii() and location.isprintable():
        assert gateway.get("/dagster/lead", params={"to": to}).status_code in (200, 307)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a?x=../y", "/containers/tool/a?x=../y"),
        ("/a..b/.c/d.", "/containers/tool/a..b/.c/d."),
        ("http://{host}/a", "/containers/tool/a"),
        ("http://tool/a", "/containers/tool/a"),
        ("/dagster/graphql?query=x", "/containers/tool/dagster/graphql?query=x"),
        ("http://{gateway}/containers/tool/a", "http://{gateway}/containers/tool/a"),
        ("https://{gateway}/containers/tool/a", "https://{gateway}/containers/tool/a"),
    ],
)
def test_a_tool_leads_to_itself(gateway: Gateway, location: str, expected: str) -> None:
    """Below its own prefix."""
    here = f"127.0.0.1:{gateway.port}"
    answer = gateway.get("/containers/tool/lead", params={"to": location.replace("{gateway}", here)})
    assert (answer.status_code, answer.headers.get("Location")) == (307, expected.replace("{gateway}", here))


def _answer(gateway: Gateway, path: str) -> tuple[int, HTTPMessage, bytes]:
    """Ask for a path that requests would tidy."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("GET", path))
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers, answer.read()


def test_an_upstream_cannot_steer_the_gateway(gateway: Gateway) -> None:
    """An X-Accel-Redirect would have nginx answer with something else, in the name of the container."""
    answer = gateway.get("/containers/tool/steer")
    assert (answer.status_code, answer.text) == (200, "as it came")
    assert not {"proxy-authenticate", "trailer"} & {name.lower() for name in answer.headers}
    assert answer.headers["Server"] in ("bonseyes", "nginx")


def test_several_cookies_stay_several(gateway: Gateway) -> None:
    """Set-Cookie cannot be joined."""
    assert dict(gateway.get("/containers/tool/cookies").cookies) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 404, 405, 413, 414, 500, 501, 502, 503, 504])
def test_an_answer_is_the_upstreams_own(gateway: Gateway, status: int) -> None:
    """An error of an upstream is not taken for one of the gateway's."""
    answer = gateway.get(f"/containers/tool/status?code={status}")
    assert answer.status_code == status
    assert answer.text == ("" if status in (204, 304) else "my own words")
    assert answer.headers.get("WWW-Authenticate") == ('Basic realm="mine"' if status == 401 else None)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upstream_that_hangs_up_is_unavailable(gateway: Gateway, upstream: Upstream, method: str) -> None:
    """And is not asked twice: whether it had done what was asked of it cannot be known."""
    answer = requests.request(method, f"{gateway.url}/containers/tool/hang-up", data=b"x", timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.json()["error"]["message"].startswith("tool ")
    assert answer.headers["Retry-After"] == "1"
    assert upstream.asked == 1


def test_what_is_not_http_is_no_answer(gateway: Gateway) -> None:
    """The embedded gateway says so; nginx takes it for HTTP/0.9, which the client must not."""
    if gateway.kind == EMBEDDED:
        assert gateway.get("/containers/tool/garbage").status_code == 503
    else:
        with pytest.raises(requests.ConnectionError, match="BadStatusLine"):
            gateway.get("/containers/tool/garbage")


@pytest.mark.parametrize("path", ["/containers/nope/", "/containers/down/", "/dagster", "/healthz"])
def test_an_answer_of_the_gateways_own_to_head_has_no_body(gateway: Gateway, path: str) -> None:
    """And the connection goes on."""
    with requests.Session() as session:
        expected = session.get(gateway.url + path, allow_redirects=False, timeout=20)
        answer = session.head(gateway.url + path, timeout=20)
        assert (answer.status_code, answer.content) == (expected.status_code, b"")
        assert session.get(f"{gateway.url}/containers/tool/x", timeout=20).status_code == 200


@pytest.mark.parametrize(
    "lines", [["Cookie: " + "a" * 20_000], [f"X-{number}: {'a' * 7000}" for number in range(20)]], ids=["one", "many"]
)
def test_headers_that_are_too_large_are_a_bad_request(gateway: Gateway, lines: list[str]) -> None:
    """Told in JSON; nothing is kept of them."""
    status, body = gateway.answer(gateway.head("GET", "/containers/tool/x", *lines))
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_a_first_line_that_is_too_long_is_a_bad_request(gateway: Gateway) -> None:
    """While one of some thousand characters passes."""
    assert gateway.get("/containers/tool/" + "a" * 7000).status_code == 200
    status, body = gateway.answer(gateway.head("GET", "/containers/tool/" + "a" * 20_000))
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_a_connection_serves_many_requests(gateway: Gateway) -> None:
    """Also after errors, and after requests that were refused with their bodies unread."""
    with gateway.connect() as connection:
        for number in range(30):
            path, expected = [("/containers/tool/x", 200), ("/containers/nope/", 404), ("/containers/down/", 503)][
                number % 3
            ]
            connection.sendall(gateway.head("POST", path, "Content-Length: 5") + b"12345")
            answer = HTTPResponse(connection)
            answer.begin()
            answer.read()
            assert answer.status == expected


def test_queries_are_not_logged(gateway: Gateway) -> None:
    """They may hold what is nobody's business, also when something goes wrong."""
    for path in ("tool/x", "down/x", "tool/hang-up", "tool/short", "nope/x", "tool/garbage"):
        with contextlib.suppress(requests.RequestException):
            gateway.get(f"/containers/{path}?how=length&secret=hush{path[:2]}")
    gateway.answer(gateway.head("GET", "/containers/tool/x?secret=hush" + "a" * 20_000))
    assert "/containers/down/x" in gateway.log()
    assert "hush" not in gateway.log()
