"""The access rules on every route: Host, Origin and token."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import pytest
import requests

from tests.contract.gateway.processes import EMBEDDED, TOKEN, Gateway
from tests.contract.gateway.upstream import STREAMS, Upstream, header
from tests.other_user import as_other_user, needs_root

MIB = 2**20


def test_a_foreign_host_reaches_nothing(gateway: Gateway) -> None:
    """DNS rebinding: a page of evil.example whose name now resolves to this machine."""
    for path in ("/", "/healthz", "/containers/tool/x", "/dagster/graphql"):
        answer = gateway.get(path, headers={"Host": f"evil.example:{gateway.port}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@needs_root
def test_another_user_of_the_machine_needs_the_token(gateway: Gateway, guarded: Gateway) -> None:
    """Any user can connect to a port; the kernel knows which user has connected."""
    if gateway.kind != EMBEDDED:
        pytest.skip("in docker, the kernel does not reveal the user of a connection")

    def ask(asked: Gateway, method: str, path: str, *lines: str) -> tuple[int, str]:
        return as_other_user(lambda: _status_and_text(asked, asked.head(method, path, *lines)))

    handshake = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    for method, path, lines in (
        ("GET", "/healthz", ()),
        ("GET", "/containers/tool/artifacts", ()),
        ("DELETE", "/containers/tool/artifacts/a", ()),
        ("GET", "/dagster/graphql", handshake),
    ):
        status, text = ask(gateway, method, path, *lines)
        assert (status, "BONSEYES_TOKEN" in text) == (403, True), (path, text)
        assert ask(guarded, method, path, *lines)[0] in (200, 401)
    assert ask(guarded, "GET", "/containers/tool/artifacts", f"Authorization: Bearer {TOKEN}")[0] == 200
    assert gateway.get("/containers/tool/artifacts").status_code == 200


def _status_and_text(gateway: Gateway, request: bytes) -> tuple[int, str]:
    """Send a request twice on one connection, as a client with keep-alive does."""
    with gateway.connect() as connection:
        for _ in range(2):
            connection.sendall(request)
            answer = HTTPResponse(connection)
            answer.begin()
            text = answer.read().decode()
        return answer.status, text


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_a_foreign_page_changes_nothing(gateway: Gateway, headers: dict[str, str]) -> None:
    """Neither with an unsafe method, nor with a GET that Dagster would execute."""
    for method in ("POST", "DELETE", "PUT", "PATCH"):
        answer = requests.request(method, f"{gateway.url}/containers/tool/x", headers=headers, timeout=20)
        assert answer.status_code == 403
    for path in ("/dagster/graphql?query=mutation", "/dagster/x", "/containers/tool/x", "/x", "/healthz"):
        assert gateway.get(path, headers=headers).status_code == 403


LINK = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html")
IMAGE = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Accept: image/*")
FRAME = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html")
OURS = ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: */*")
SPELLINGS = [
    "/dagster/graphql", "/dagster/%67raphql", "/dagster/graphq%6C", "/dagster/%67%72%61%70%68%71%6c",
    "/dagster/%2567raphql", "/dagster/graphql/", "/dagster//graphql", "/dagster/%2fgraphql", "/dagster/graphql%2f",
    "/dagster/graphql;", "/dagster/graphql;x", "/dagster/graphql%3b", "/dagster/graphql%0a", "/dagster/graphql%0a/",
    "/dagster/graphql%00", "/dagster/graphql%20", "/dagster/graphql%3f", "/dagster/graphql%23", "/dagster/GraphQL",
    "/dagster/\\graphql", "/dagster/%5cgraphql", "/dagster/./graphql", "/dagster/%2e/graphql", "/dagster/x/../graphql",
    "/dagster/x/%2e%2e/graphql", "/dagster/x/..%2fgraphql", "/dagster/graphql#", "/dagster/graphql#x",
    "http://127.0.0.1:{port}/dagster/graphql", "http://127.0.0.1:{port}/dagster/%67raphql", "//dagster/graphql",
    "/dagster%2fgraphql", "/%64agster/graphql", "/dagster%5cgraphql", "/containers/%7bdagster%7d/dagster/graphql",
]  # fmt: skip


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_link_executes_a_query(gateway: Gateway, path: str) -> None:
    """Dagster decodes the path in any spelling, and would execute a mutation from an <img src>.

    An old browser does not say where a request comes from, and a link may lead to a page of this project.
    """
    target = path.replace("{port}", str(gateway.port)) + "?query=mutation%7BsetNuxSeen%7D"
    for method, lines in itertools.product(("GET", "HEAD"), (LINK, IMAGE, FRAME, OURS, ())):
        head, _, body = gateway.send(gateway.head(method, target, *lines, "Connection: close")).partition(b"\r\n\r\n")
        if lines in (IMAGE, FRAME) or path.startswith("/dagster/"):
            assert int(head.split(b" ")[1]) in (400, 403, 404)
        # Other spellings of the path lead to the dashboard.
        assert b'"X-Forwarded-Prefix", "/dagster"' not in body


def test_dagsters_own_pages_work(gateway: Gateway) -> None:
    """A link from another site may open one; the page sends its queries by POST."""
    for path in ("/dagster/", "/dagster/runs?q%5B0%5D=status%3AFAILURE", "/dagster/graphql", "/containers/tool/x", "/"):
        assert gateway.answer(gateway.head("GET", path, *LINK))[0] == 200
    for path in ("/dagster/graphql", "/dagster/_next/static/chunk.js?x", "/dagster/logs/a/b"):
        assert gateway.answer(gateway.head("GET", path, *OURS))[0] == 200
    origin = f"Origin: http://127.0.0.1:{gateway.port}"
    for lines in ((*OURS, origin), ()):
        head = gateway.head("POST", "/dagster/graphql?op=Version", "Content-Length: 0", *lines)
        assert gateway.answer(head)[0] == 200


def test_no_answer_allows_another_site_to_read(gateway: Gateway) -> None:
    """Also when the upstream would allow it, as Dagster does."""
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    refused = requests.options(f"{gateway.url}/containers/tool/x", headers=asked, timeout=20)
    assert refused.status_code == 403
    assert not [name for name in refused.headers if name.lower().startswith("access-control")]
    answer = gateway.get("/containers/tool/x")
    assert answer.headers["X-Seen"] == "yes"
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/containers/tool/x", "/dagster/graphql", "/containers/nope/", "/logout"]
)
def test_without_the_token_every_answer_is_401(guarded: Gateway, path: str) -> None:
    """The answer must not even show whether a container exists."""
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Cookie": "bonseyes_x=1"}):
        answer = guarded.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_token_is_accepted_and_not_forwarded(guarded: Gateway) -> None:
    """No container sees it."""
    answer = guarded.get("/containers/tool/x", headers={"Authorization": f"Bearer {TOKEN}", "Cookie": "mine=1"})
    assert answer.status_code == 200
    assert TOKEN not in answer.text
    assert header(answer.json(), "Cookie") == "mine=1"


def test_a_browser_signs_in_and_out(guarded: Gateway) -> None:
    """The cookie is HttpOnly and SameSite=Strict, is not the token, and signing out ends it."""
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


@pytest.mark.slow
def test_a_wrong_token_is_answered_slowly(guarded: Gateway) -> None:
    """One second for each, one after the other, in the form and as a bearer token; browsers get a page."""

    def guess(number: int) -> int:
        if number % 2:
            return guarded.get("/containers/tool/x", headers={"Authorization": f"Bearer {number}"}).status_code
        return requests.post(f"{guarded.url}/login", data={"token": "no"}, timeout=20).status_code

    begun_s = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(guess, range(4))) == [401, 401, 401, 401]
    assert time.monotonic() - begun_s > 3.9
    assert guarded.get("/containers/tool/x", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    page = requests.post(f"{guarded.url}/login", data={"token": "x"}, headers={"Accept": "text/html"}, timeout=20)
    assert (page.status_code, page.headers["Content-Type"]) == (401, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    "target", ["http://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", "/a\nb"]
)
def test_signing_in_never_redirects_to_another_site(guarded: Gateway, target: str) -> None:
    """An attacker could use an open redirect for a false login page."""
    fields = {"token": TOKEN, "next": target}
    answer = requests.post(f"{guarded.url}/login", data=fields, allow_redirects=False, timeout=20)
    assert answer.headers["Location"] == "/"


def test_another_site_cannot_sign_a_user_in_or_out(guarded: Gateway) -> None:
    """The first is login CSRF, the second a nuisance."""
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert requests.post(f"{guarded.url}/login", data={"token": TOKEN}, headers=foreign, timeout=20).status_code == 403
    assert guarded.get("/logout", headers=foreign).status_code == 403


ROUTES_OF_ALL_KINDS = [
    "/",
    "/pipelines",
    "/healthz",
    "/logout",
    "/containers/",
    "/containers/tool/x",
    "/containers/visualization/",
    "/containers/visualization",
    "/containers/nope/",
    "/containers/down/",
    "/containers/tool/artifacts/a/data/page.html",
    "/containers/t%6fol/x",
    "/dagster",
    "/dagster/",
    "/dagster/graphql",
    "/dagster/graphql?query=mutation",
    *(f"/containers/tool/{stream}?n=1000&s=0&how=length" for stream in STREAMS),
]
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "A" * 22 + "==",
)


@pytest.mark.parametrize("path", ROUTES_OF_ALL_KINDS)
@pytest.mark.parametrize(
    "lines",
    [(), ("Content-Length: 3",), ("Transfer-Encoding: chunked",), WEBSOCKET],
    ids=["plain", "length", "chunked", "websocket"],
)
def test_every_route_needs_the_token(guarded: Gateway, upstream: Upstream, path: str, lines: tuple[str, ...]) -> None:
    """Pages, streams and websockets, existing and missing ones; no upstream gets a request."""
    method = "POST" if lines and lines is not WEBSOCKET else "GET"
    body = (
        {"Content-Length: 3": b"abc", "Transfer-Encoding: chunked": b"3\r\nabc\r\n0\r\n\r\n"}.get(lines[0], b"")
        if lines
        else b""
    )
    for given in ((), ("Authorization: Basic eDp5",), ("Cookie: bonseyes_0123456789ab=1.2.3",)):
        status, answer = guarded.answer(guarded.head(method, path, *lines, *given) + body)
        assert (status, json.loads(answer)["error"]["code"]) == (401, "unauthorized")
    assert not upstream.began.is_set()


@pytest.mark.parametrize("path", [*ROUTES_OF_ALL_KINDS, "/login"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:{port}.evil.example"])
def test_every_route_checks_the_host(gateway: Gateway, upstream: Upstream, path: str, host: str) -> None:
    """Also routes that need no token."""
    for lines in ((), WEBSOCKET):
        head = "\r\n".join((f"GET {path} HTTP/1.1", f"Host: {host.format(port=gateway.port)}", *lines, "", ""))
        status, answer = gateway.answer(head.encode())
        assert (status, json.loads(answer)["error"]["code"]) == (403, "forbidden")
    assert not upstream.began.is_set()


@pytest.mark.parametrize("path", [*ROUTES_OF_ALL_KINDS, "/login"])
@pytest.mark.parametrize("line", ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"])
def test_no_route_lets_another_site_change_anything(gateway: Gateway, upstream: Upstream, path: str, line: str) -> None:
    """Or open a websocket."""
    for method, lines in (("POST", ("Content-Length: 0",)), ("DELETE", ()), ("GET", WEBSOCKET)):
        status, answer = gateway.answer(gateway.head(method, path, *lines, line))
        assert (status, json.loads(answer)["error"]["code"]) == (403, "forbidden")
    assert not upstream.began.is_set()


def test_a_refused_upload_is_answered_at_once(guarded: Gateway) -> None:
    """Before the body arrives, and without storing it."""
    with guarded.connect() as connection:
        connection.sendall(guarded.head("POST", "/containers/tool/x", f"Content-Length: {2**34}") + b"x" * 10_000)
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (401, "unauthorized")


def test_a_request_without_a_host_is_refused(gateway: Gateway) -> None:
    """HTTP/1.0 allows it."""
    raw = gateway.send(b"GET /containers/tool/x HTTP/1.0\r\n\r\n")
    assert raw.split(b" ")[1] in (b"400", b"403")


def test_other_credentials_are_forwarded(gateway: Gateway, guarded: Gateway) -> None:
    """The gateway removes only its own token and cookie."""
    seen = gateway.get("/containers/tool/x", headers={"Authorization": "Basic eDp5", "Cookie": "a=1; b=2"}).json()
    assert (header(seen, "Authorization"), header(seen, "Cookie")) == ("Basic eDp5", "a=1; b=2")
    signed_in = requests.post(f"{guarded.url}/login", data={"token": TOKEN}, allow_redirects=False, timeout=20)
    name, value = next(iter(signed_in.cookies.items()))
    both = {"Authorization": "Basic eDp5", "Cookie": f"a=1; {name}={value}; b=2"}
    seen = guarded.get("/containers/tool/x", headers=both).json()
    assert (header(seen, "Authorization"), header(seen, "Cookie")) == ("Basic eDp5", "a=1; b=2")
