"""The target of each route, the headers in both directions, and the errors."""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPMessage, HTTPResponse

import pytest
import requests

from tests.contract.gateway.processes import EMBEDDED, Gateway
from tests.contract.gateway.upstream import Upstream, header

MIB = 2**20


def test_a_container_gets_its_own_path_and_the_prefix(gateway: Gateway) -> None:
    """Percent-encoding and query arrive unchanged."""
    answer = gateway.get("/containers/tool/artifacts/a%2Fb/x%20y?q=%2F&q=%3F").json()
    assert answer["path"] == "/artifacts/a%2Fb/x%20y?q=%2F&q=%3F"
    assert header(answer, "X-Forwarded-Prefix") == "/containers/tool"
    assert header(answer, "X-Forwarded-Host") == f"127.0.0.1:{gateway.port}"
    assert header(answer, "X-Forwarded-Proto") == "http"
    assert header(answer, "X-Forwarded-For") == "127.0.0.1"
    assert header(answer, "X-Request-Id")


def test_no_other_headers_are_added_to_a_request(gateway: Gateway) -> None:
    """No Accept-Encoding, which would make the upstream compress, no User-Agent, no Content-Type."""
    raw = gateway.send(
        f"GET /containers/tool/x HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nConnection: close\r\n\r\n".encode()
    )
    names = {name.lower() for name, _ in json.loads(raw.partition(b"\r\n\r\n")[2])["headers"]}
    assert not names & {"accept", "accept-encoding", "user-agent", "content-type", "content-length"}


def test_a_page_is_redirected_to_its_slash(gateway: Gateway) -> None:
    """With its query; relative links of the page need the slash."""
    answer = gateway.get("/dagster?x=1")
    assert (answer.status_code, answer.headers["Location"]) == (308, "/dagster/?x=1")


def test_a_location_leads_back_through_the_gateway(gateway: Gateway) -> None:
    """A client cannot use the upstream's own address."""
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
def test_missing_containers_get_json_errors(gateway: Gateway, path: str, status: int, code: str) -> None:
    """An unknown container is a 404, one that is down a 503, with the policies and a request id."""
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
def test_malformed_http_is_a_bad_request_in_json(gateway: Gateway, raw: bytes) -> None:
    """Never an HTML page, never a 5xx, and never a smuggled second request."""
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
    """Byte for byte, on each route: the gateway neither decodes nor normalises them."""
    answer = json.loads(gateway.answer(gateway.head("GET", path))[1])
    assert (answer["path"], header(answer, "X-Forwarded-Prefix")) == (seen, prefix)


def test_a_path_that_is_not_ascii_is_a_bad_request(gateway: Gateway) -> None:
    """Upstreams would read it differently, so the client must percent-encode it."""
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
def test_an_unknown_method_causes_no_5xx(gateway: Gateway, method: str) -> None:
    """It passes, or is a bad request."""
    status, _ = gateway.answer(gateway.head(method, "/containers/tool/x"))
    assert status in (200, 400, 405)


def test_hop_by_hop_and_forged_headers_are_removed(gateway: Gateway) -> None:
    """WSGI reads X_Forwarded_Prefix as X-Forwarded-Prefix; an HTTP/2 upgrade is not for the upstream."""
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
    """A valid id of the client reaches upstreams and appears in errors."""
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


def test_answers_get_each_policy_once(gateway: Gateway) -> None:
    """They replace the upstream's headers."""
    answer = gateway.get("/x")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    page = gateway.get("/page.html")
    assert page.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/dagster/x", "/containers/visualization/x", "/x"])
def test_pages_of_this_project_may_run(gateway: Gateway, path: str) -> None:
    """The pages of Dagster, TensorBoard and the dashboard keep their own policies."""
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
def test_files_of_tools_are_sandboxed_attachments(gateway: Gateway, path: str) -> None:
    """Whatever headers the container sent, and in any spelling of the path."""
    status, lines, _ = _answer(gateway, f"/containers/tool/{path}")
    assert status == 200
    assert lines["Content-Disposition"] == 'attachment; filename="page.html"'
    assert lines["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert lines["X-Content-Type-Options"] == "nosniff"


def test_a_json_error_is_not_an_attachment(gateway: Gateway) -> None:
    """Users must be able to read an error instead of a file."""
    answer = gateway.get("/containers/tool/artifacts/a/data/x")
    assert "Content-Disposition" not in answer.headers
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize("path", ["/containers/tool/subvert", "/containers/t%6fol/subvert"])
def test_a_tool_cannot_serve_pages(gateway: Gateway, path: str) -> None:
    """A subverted tool without network access could reach everything through a browser."""
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
def test_a_tool_cannot_redirect_elsewhere(gateway: Gateway, location: str) -> None:
    """A page of this project would follow the redirect, for example to Dagster."""
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
def test_a_tool_may_redirect_to_itself(gateway: Gateway, location: str, expected: str) -> None:
    """Below its own prefix."""
    here = f"127.0.0.1:{gateway.port}"
    answer = gateway.get("/containers/tool/lead", params={"to": location.replace("{gateway}", here)})
    assert (answer.status_code, answer.headers.get("Location")) == (307, expected.replace("{gateway}", here))


def _answer(gateway: Gateway, path: str) -> tuple[int, HTTPMessage, bytes]:
    """Send a request for a path that the library `requests` would normalise."""
    with gateway.connect() as connection:
        connection.sendall(gateway.head("GET", path))
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers, answer.read()


def test_an_upstream_cannot_control_nginx(gateway: Gateway) -> None:
    """X-Accel-Redirect would make nginx answer with another resource in the name of the container."""
    answer = gateway.get("/containers/tool/steer")
    assert (answer.status_code, answer.text) == (200, "as it came")
    assert not {"proxy-authenticate", "trailer"} & {name.lower() for name in answer.headers}
    assert answer.headers["Server"] in ("bonseyes", "nginx")


def test_set_cookie_headers_are_not_joined(gateway: Gateway) -> None:
    """A client cannot split a joined Set-Cookie header."""
    assert dict(gateway.get("/containers/tool/cookies").cookies) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 404, 405, 413, 414, 500, 501, 502, 503, 504])
def test_an_error_answer_of_the_upstream_is_forwarded(gateway: Gateway, status: int) -> None:
    """The gateway does not replace it by its own."""
    answer = gateway.get(f"/containers/tool/status?code={status}")
    assert answer.status_code == status
    assert answer.text == ("" if status in (204, 304) else "my own words")
    assert answer.headers.get("WWW-Authenticate") == ('Basic realm="mine"' if status == 401 else None)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upstream_that_closes_without_an_answer_is_a_503(gateway: Gateway, upstream: Upstream, method: str) -> None:
    """The gateway does not repeat the request: the upstream may have executed it."""
    answer = requests.request(method, f"{gateway.url}/containers/tool/hang-up", data=b"x", timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.json()["error"]["message"].startswith("tool ")
    assert answer.headers["Retry-After"] == "1"
    assert upstream.asked == 1


def test_an_answer_that_is_not_http_is_refused(gateway: Gateway) -> None:
    """By the embedded gateway; nginx reads it as HTTP/0.9, which the client must refuse."""
    if gateway.kind == EMBEDDED:
        assert gateway.get("/containers/tool/garbage").status_code == 503
    else:
        with pytest.raises(requests.ConnectionError, match="BadStatusLine"):
            gateway.get("/containers/tool/garbage")


@pytest.mark.parametrize("path", ["/containers/nope/", "/containers/down/", "/dagster", "/healthz"])
def test_the_gateways_own_answer_to_head_has_no_body(gateway: Gateway, path: str) -> None:
    """And the connection stays usable."""
    with requests.Session() as session:
        expected = session.get(gateway.url + path, allow_redirects=False, timeout=20)
        answer = session.head(gateway.url + path, timeout=20)
        assert (answer.status_code, answer.content) == (expected.status_code, b"")
        assert session.get(f"{gateway.url}/containers/tool/x", timeout=20).status_code == 200


@pytest.mark.parametrize(
    "lines", [["Cookie: " + "a" * 20_000], [f"X-{number}: {'a' * 7000}" for number in range(20)]], ids=["one", "many"]
)
def test_headers_that_are_too_large_are_a_bad_request(gateway: Gateway, lines: list[str]) -> None:
    """In JSON."""
    status, body = gateway.answer(gateway.head("GET", "/containers/tool/x", *lines))
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_a_first_line_that_is_too_long_is_a_bad_request(gateway: Gateway) -> None:
    """A line of some thousand characters passes."""
    assert gateway.get("/containers/tool/" + "a" * 7000).status_code == 200
    status, body = gateway.answer(gateway.head("GET", "/containers/tool/" + "a" * 20_000))
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_a_connection_serves_many_requests(gateway: Gateway) -> None:
    """Also after errors, and after refused requests whose bodies were not read."""
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
    """They may be secret, also after an error."""
    for path in ("tool/x", "down/x", "tool/hang-up", "tool/short", "nope/x", "tool/garbage"):
        with contextlib.suppress(requests.RequestException):
            gateway.get(f"/containers/{path}?how=length&secret=hush{path[:2]}")
    gateway.answer(gateway.head("GET", "/containers/tool/x?secret=hush" + "a" * 20_000))
    assert "/containers/down/x" in gateway.log()
    assert "hush" not in gateway.log()
