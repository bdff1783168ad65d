"""The HTTP contract of artifacts and runs, over real sockets, for every implementation."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.contract.serving import CONTINUE, Difference, Server
from tests.waiting import until

TEXT = "hello\n"
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture(scope="module")
def made(server: Server) -> str:
    """Return a completed artifact with three files (one in a folder), three steps in its log and an uploaded input."""
    name = server.new_name()
    answer = server.request(
        "POST",
        f"/{server.collection}",
        data={"name": name, "data": json.dumps({"files": ["a.txt", "d/b.txt"], "steps": 3})},
        files={"upload": ("up load.bin", b"0123456789")},
    )
    assert answer.status_code == 200, answer.text
    assert server.wait(name)["phase"] == "completed"
    return name


@pytest.fixture(scope="module")
def single(server: Server) -> str:
    """Return a completed artifact for which the tool made exactly one file."""
    return server.made()


def error_of(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """Check the keys and the status of an error answer; return the error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "detail", "request_id"}
    assert error["code"] == code
    assert error["message"]
    assert error["request_id"] == answer.headers["X-Request-Id"]
    return error


def assert_not_found(server: Server, path: str) -> None:
    """Check that a path below the collection, sent unchanged, is a 404."""
    answer = server.exchange(f"GET /{server.collection}/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    if server.prefix and "%00" in path and answer.startswith(b"HTTP/1.1 400 "):
        assert b'"bad_request"' in answer  # nginx refuses it as malformed HTTP
        return
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert b'"not_found"' in answer


# Every container


def test_description_has_all_keys_of_the_contract(server: Server) -> None:
    """`GET /` describes the container and each of its parameters."""
    body = server.get("/").json()
    keys = {"name", "description", "artifacts", "parameters", "schema", "output_type", "version", "api_version"}
    assert keys <= set(body)
    assert body["api_version"] == "1"
    assert body["artifacts"] == [f"/{server.collection}"]
    assert body["parameters"]["steps"]["type"] == "integer"
    assert body["schema"]["properties"]["steps"]["maximum"] == 1000


def test_healthz_reports_readiness(server: Server) -> None:
    """`GET /healthz` answers 200 with `ready`."""
    answer = server.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_metrics_are_prometheus_text(server: Server, single: str) -> None:
    """`GET /metrics` counts requests by route and status, and has the length of the queue."""
    server.get(f"{single}/status")
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    route = f'route="/{server.collection}/<name>/status",status="200"'
    lines = [
        line for line in answer.text.splitlines() if line.startswith("bonseyes_http_requests_total") and route in line
    ]
    assert float(lines[0].rpartition(" ")[2]) >= 1
    assert "bonseyes_queue_length" in answer.text


def test_openapi_document_is_served(server: Server) -> None:
    """`GET /openapi.json` is an OpenAPI 3.1 document of these routes."""
    document = server.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert f"/{server.collection}/{{name}}/data/{{path}}" in document["paths"]
    assert document["servers"] == [{"url": server.url}]


def test_valid_request_id_is_kept_and_another_is_replaced(server: Server) -> None:
    """The answer has the request id in X-Request-Id."""
    assert server.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    made = server.get("/healthz", headers={"X-Request-Id": "a b" * 100}).headers["X-Request-Id"]
    assert len(made) == 32


@pytest.mark.parametrize(
    "path", ["", "/NAME", "/NAME/status", "/NAME/data", "/NAME/files", "/NAME/log", "/NAME/metrics"]
)
def test_trailing_slash_changes_nothing(server: Server, single: str, path: str) -> None:
    """A route answers the same with a slash at its end, without a redirect."""
    path = f"/{server.collection}{path.replace('NAME', single)}"
    plain, slashed = (server.get(p, allow_redirects=False) for p in (path, path + "/"))
    assert plain.status_code == slashed.status_code == 200
    assert plain.content == slashed.content


def test_post_works_with_a_trailing_slash(server: Server) -> None:
    """A redirect would lose the multipart body."""
    name = server.new_name()
    answer = server.request(
        "POST",
        f"/{server.collection}/",
        data={"name": name, "data": "{}"},
        files={"upload": b"x"},
        allow_redirects=False,
    )
    assert answer.status_code == 200, answer.text


def test_underscores_may_replace_hyphens_in_routes(server: Server, made: str) -> None:
    """Only the fixed segments of a route have this second spelling."""
    for hyphenated in ("input-parameters", "input-files", "input-files/upload"):
        twin = hyphenated.replace("-", "_")
        assert server.get(f"{made}/{hyphenated}").content == server.get(f"{made}/{twin}").content


def test_unknown_route_is_json_404(server: Server) -> None:
    """Clients parse every error as JSON; an HTML page would be useless to them."""
    error_of(server.get("/nothing/here"), 404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_wrong_method_is_json_405(server: Server, method: str) -> None:
    """The Allow header of the answer has the methods of the route."""
    answer = server.request(method, f"/{server.collection}")
    error_of(answer, 405, "method_not_allowed")
    assert {"GET", "HEAD", "POST", "OPTIONS"} == set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("method", ["TRACE", "BREW"])
def test_method_of_no_route_is_refused(server: Server, method: str) -> None:
    """The refusal is JSON. A gateway refuses such a method itself."""
    answer = server.request(method, f"/{server.collection}")
    if server.prefix and answer.status_code == 400:
        error_of(answer, 400, "bad_request")
    else:
        error_of(answer, 405, "method_not_allowed")


def test_head_has_no_body_and_options_names_the_methods(server: Server, single: str) -> None:
    """HEAD has the headers of GET."""
    get, head = (server.request(method, server.file_url(single)) for method in ("GET", "HEAD"))
    assert head.status_code == 200
    assert head.content == b""
    for header in ("Content-Length", "ETag", "Content-Type", "Repr-Digest"):
        assert head.headers[header] == get.headers[header]
    options = server.request("OPTIONS", f"{single}/cancel")
    assert options.status_code == 200
    assert set(options.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize(
    "name", ["..", "a..b", ".a", "-a", "a%20b", "%00", "a%00b", "%ff", "%F0%9F%92%A9", "a" * 129, "a%0A"]
)
def test_invalid_names_are_not_found(server: Server, name: str) -> None:
    """A read of such a name is a 404, whatever bytes the name has."""
    assert_not_found(server, f"{name}/status")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /PLACE?limit=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /PLACE?limit=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /PLACE HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n",
        b"POST /PLACE HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5, 5\r\n\r\nabcde",
        b"POST /PLACE HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /PLACE HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /PLACE HTTP/1.1\r\nHost: x\r\nContent-Type: \xff\xfe\r\nContent-Length: 1\r\n\r\nx",
        b"POST /PLACE HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
        b"GET /PLACE HTTP/1.1\r\nHost: \xff\xff\r\n\r\n",
        b'GET /PLACE?limit=1 HTTP/1.1\r\nHost: x\r\nX-Forwarded-Prefix: "><script>\r\n\r\n',
    ],
)
def test_malformed_requests_cause_no_5xx(server: Server, request_bytes: bytes) -> None:
    """The answer is not an HTML page either, and the server stays usable."""
    answer = server.exchange(request_bytes.replace(b"PLACE", server.collection.encode()))
    status = int(answer.split(b" ", 2)[1])
    assert 200 <= status < 500, answer
    assert b"<html" not in answer.lower()
    assert server.get("/healthz").status_code == 200


def test_a_foreign_host_gets_nothing(server: Server) -> None:
    """DNS rebinding: a page whose host name resolves to this server must not read anything."""
    forged = "Host: evil.example\r\nX-Forwarded-Host: 127.0.0.1:8000\r\nX-Forwarded-For: 127.0.0.1"
    for path in ("/", f"/{server.collection}"):
        answer = server.exchange(f"GET {path} HTTP/1.1\r\n{forged}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        assert b'"forbidden"' in answer


def test_too_large_headers_are_refused(server: Server) -> None:
    """The server stays usable."""
    answer = server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 200_000 + b"\r\n\r\n")
    assert not answer or answer.split(b" ", 2)[1].startswith(b"4")
    assert server.get("/healthz").status_code == 200


# The collection


def test_list_is_oldest_first_and_paged(server: Server) -> None:
    """`limit` and `after` select a page. Each page but the last has a Link to the next page."""
    names = [server.create() for _ in range(5)]
    everything = server.get(f"/{server.collection}").json()
    assert everything[-5:] == names
    first = server.get(
        f"/{server.collection}", params={"limit": 2, "after": everything[-6]} if len(everything) > 5 else {"limit": 2}
    )
    seen = first.json()
    page = first
    while "next" in page.links:
        page = server.session.get(page.links["next"]["url"], timeout=30)
        seen += page.json()
    assert seen[-5:] == names
    assert len(seen) == len(set(seen))


def test_list_with_detail_has_status_objects(server: Server, single: str) -> None:
    """The Link to the next page keeps `detail=1`."""
    answer = server.get(f"/{server.collection}", params={"detail": "1", "limit": "1"})
    assert [set(entry) >= {"name", "phase", "result"} for entry in answer.json()] == [True]
    if "next" in answer.links:
        assert "detail=1" in answer.links["next"]["url"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=10001",
        "limit=",
        "limit=1&limit=2",
        "limit=1_0",
        "detail=perhaps",
        "after=..",
        "after=a%20b",
        "limit=%D9%A1",
    ],
)
def test_bad_queries_are_refused(server: Server, query: str) -> None:
    """A wrong value is a 400 that names the parameter."""
    error = error_of(server.get(f"/{server.collection}?{query}"), 400, "bad_request")
    assert query.partition("=")[0] in error["message"]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("status", "wait=-1"),
        ("status", "wait=nan"),
        ("status", "wait=inf"),
        ("status", "wait=x"),
        ("log", "offset=-1"),
        ("log", "offset=9999999999999999999"),
        ("log", "follow=maybe"),
        ("metrics/METRIC/scalar", "offset=x"),
    ],
)
def test_bad_queries_of_an_artifact_are_refused(server: Server, single: str, path: str, query: str) -> None:
    """The routes below a name check their queries, too."""
    path = path.replace("METRIC", server.metrics("loss")[-1])
    error_of(server.get(f"{single}/{path}?{query}"), 400, "bad_request")


# Creating


def test_create_by_json(server: Server) -> None:
    """The answer has exactly the keys of the contract, and a Location header."""
    name = server.new_name()
    answer = server.request("POST", f"/{server.collection}", json={"name": name, "parameters": {"steps": 2}})
    url = f"{server.url}/{server.collection}/{name}"
    assert (answer.status_code, answer.json()) == (200, {"result": "success", "name": name, "url": url})
    assert answer.headers["Location"] == url
    assert server.get(f"{name}/input-parameters").json()["steps"] == 2


def test_create_by_form(server: Server, made: str) -> None:
    """Files of the form become input files. Missing parameters get their defaults."""
    assert server.get(f"{made}/input-files").json() == ["upload"]
    file = server.get(f"{made}/input-files/upload")
    assert file.content == b"0123456789"
    assert server.get(f"{made}/input-parameters").json()["text"] == TEXT
    assert server.get(f"{made}/data/{server.path('upload.bin')}").content == b"0123456789"


def test_create_by_chunked_form(server: Server) -> None:
    """The request has no Content-Length."""
    name = server.new_name()
    boundary = "b" * 20
    content = b"0123456789" * 200_000
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="upload"; filename="x"\r\n\r\n'
    ).encode()

    def body() -> Iterator[bytes]:
        yield head
        for begin in range(0, len(content), 100_000):
            yield content[begin : begin + 100_000]
        yield f"\r\n--{boundary}--\r\n".encode()

    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = server.request("POST", f"/{server.collection}", data=body(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert server.get(f"{name}/input-files/upload").content == content


def test_expect_100_continue_is_answered_before_the_body(server: Server) -> None:
    """The answer is `100 Continue`, or the refusal of the request."""
    body = json.dumps({"name": server.new_name()}).encode()
    head = f"POST /{server.collection} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with server.send(f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()) as connection:
        assert connection.recv(1000) == CONTINUE
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    if not server.prefix:  # a gateway answers `100 Continue` before the container checks the headers
        too_large = server.exchange(f"{head}Expect: 100-continue\r\nContent-Length: {1 << 40}\r\n\r\n".encode())
        assert too_large.startswith(b"HTTP/1.1 413 ")


def test_urls_follow_the_forwarded_headers(server: Server) -> None:
    """The clients of a gateway can then use the URLs in answers."""
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.org:8443",
        "X-Forwarded-Prefix": "/containers/x",
    }
    name = server.new_name()
    answer = server.request("POST", f"/{server.collection}", json={"name": name}, headers=headers)
    # A gateway trusts only X-Forwarded-Proto, because TLS may end in a proxy before the gateway.
    base = server.url.replace("http:", "https:") if server.prefix else "https://example.org:8443/containers/x"
    assert answer.json()["url"] == answer.headers["Location"] == f"{base}/{server.collection}/{name}"
    link = server.get(f"/{server.collection}?limit=1", headers=headers).links["next"]["url"]
    assert link.startswith(f"{base}/{server.collection}?")


def test_second_create_of_a_name_gets_409(server: Server, single: str) -> None:
    """Names are unique."""
    answer = server.request("POST", f"/{server.collection}", json={"name": single})
    error_of(answer, 409, "name_taken")


@pytest.mark.parametrize("name", ["", "..", "a..b", "a/b", ".a", "a" * 129, "a\n", 5, None, ["a"], "ü"])
def test_bad_names_are_invalid(server: Server, name: Any) -> None:
    """The answer is a 422 with `detail.name`."""
    if name == "":
        server.skip_for(Difference.OPTIONAL_NAME)
    error = error_of(server.request("POST", f"/{server.collection}", json={"name": name}), 422, "invalid")
    assert "name" in error["detail"]


def test_every_bad_parameter_is_named(server: Server) -> None:
    """`detail` holds all bad parameters, not only the first."""
    body = {"name": server.new_name(), "parameters": {"steps": -1, "text": 5, "unknown": 1}}
    error = error_of(server.request("POST", f"/{server.collection}", json=body), 422, "invalid")
    assert set(error["detail"]) == {"steps", "text", "unknown"}
    error_of(server.get(f"{body['name']}/status"), 404, "not_found")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("{", 400),
        ("[1]", 422),
        ("5", 422),
        ("null", 422),
        ('{"steps": NaN}', 400),
        ('{"steps": 1e999}', 400),
        ("\ud83d".encode("utf-8", "surrogatepass"), 400),
        ('{"text": "\\ud800"}', 400),
        ("[" * 100_000, 400),
        ('{"text": ' + "[" * 600 + "]" * 600 + "}", 400),
        ('{"text": ' + "[" * 70 + "]" * 70 + "}", 422),
        ("1" * 5000, 400),
        ('{"rate": 1e400}', 400),
        (b"\xff", 400),
    ],
)
def test_data_must_be_a_json_object(server: Server, data: Any, status: int) -> None:
    """A value that is not JSON is a 400. JSON that is not an object is a 422."""
    answer = server.request(
        "POST", f"/{server.collection}", files={"name": (None, server.new_name()), "data": (None, data)}
    )
    error_of(answer, status, "bad_request" if status == 400 else "invalid")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"[]", 422),
        (b'{"name": "x", "parameters": []}', 422),
        (b'{"name": "x", "extra": 1}', 422),
        (b"\xff\xfe", 400),
        (b'{"name": "x", "parameters": {"a": Infinity}}', 400),
    ],
)
def test_json_body_is_checked(server: Server, body: bytes, status: int) -> None:
    """A malformed body is a 400. A body with wrong keys is a 422."""
    answer = server.request("POST", f"/{server.collection}", data=body, headers={"Content-Type": "application/json"})
    error_of(answer, status, "bad_request" if status == 400 else "invalid")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b\r\n",
        b"--b\r\n\r\nx\r\n--b--\r\n",
        b"no boundary at all",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx',
        b"--bXX\r\n\r\n\r\n--b--",
        b'--b\r\nContent-Disposition: attachment; name="name"\r\n\r\nx\r\n--b--',
        b"--b\r\nX: " + b"a" * 20_000 + b"\r\n\r\n\r\n--b--",
        b"--b\r\n\xff: x\r\n\r\n\r\n--b--",
    ],
)
def test_malformed_multipart_is_400(server: Server, body: bytes) -> None:
    """A malformed form never causes a 500."""
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    error_of(server.request("POST", f"/{server.collection}", data=body, headers=headers), 400, "bad_request")


@pytest.mark.parametrize(
    "mimetype",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "",
        ";;;",
        "multipart/mixed; boundary=b",
    ],
)
def test_other_media_types_are_415(server: Server, mimetype: str) -> None:
    """The error names the media types that the route takes."""
    answer = server.request("POST", f"/{server.collection}", data=b"x", headers={"Content-Type": mimetype})
    assert "multipart/form-data" in error_of(answer, 415, "unsupported_media_type")["message"]


def test_too_large_content_length_is_refused_at_once(server: Server) -> None:
    """The client gets the 413, although it still sends the body."""
    answer = server.request(
        "POST",
        f"/{server.collection}",
        data=bytes(65 << 20),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    error_of(answer, 413, "too_large")


def test_too_large_chunked_body_is_refused_while_it_arrives(server: Server) -> None:
    """Its length is not known before it exceeds the limit."""
    name = server.new_name()
    head = f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n--b\r\n'.encode()

    def body() -> Iterator[bytes]:
        yield head + b'Content-Disposition: form-data; name="upload"; filename="x"\r\n\r\n'
        for _ in range(65):
            yield bytes(1 << 20)
        yield b"\r\n--b--"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    error_of(server.request("POST", f"/{server.collection}", data=body(), headers=headers), 413, "too_large")
    error_of(server.get(f"{name}/status"), 404, "not_found")


@pytest.mark.parametrize("part", ["../../escape", "a/b", "..", "", "ü", "a\x00b"])
def test_part_names_cannot_escape(server: Server, part: str) -> None:
    """A part whose name is not a valid parameter name is refused."""
    head = f'--b\r\nContent-Disposition: form-data; name="{part}"; filename="x"\r\n\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = server.request("POST", f"/{server.collection}", data=head + b"x\r\n--b--", headers=headers)
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    "filename", ["../../../tmp/escape", "..", "/etc/passwd", "C:\\x\\y", "a\x00b", "ü", "a" * 500, "😀" * 128, ""]
)
def test_filenames_cannot_escape(server: Server, filename: str) -> None:
    """Whatever the filename, the file belongs to its parameter and stays in its folder."""
    name = server.new_name()
    body = (
        f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'
        f'--b\r\nContent-Disposition: form-data; name="upload"; filename="{filename}"\r\n\r\ncontent\r\n--b--\r\n'
    ).encode()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = server.request("POST", f"/{server.collection}", data=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert server.get(f"{name}/input-files").json() == ["upload"]
    assert server.get(f"{name}/input-files/upload").content == b"content"


def test_file_given_twice_is_invalid(server: Server) -> None:
    """The server must not choose one of two parts with the same name."""
    files = [("upload", ("a", b"1")), ("upload", ("b", b"2"))]
    answer = server.request("POST", f"/{server.collection}", data={"name": server.new_name()}, files=files)
    assert "upload" in error_of(answer, 422, "invalid")["detail"]


def test_unknown_file_is_invalid(server: Server) -> None:
    """The error names the part."""
    answer = server.request("POST", f"/{server.collection}", data={"name": server.new_name()}, files={"other": b"1"})
    assert "other" in error_of(answer, 422, "invalid")["detail"]


def test_same_idempotency_key_gives_the_same_artifact(server: Server) -> None:
    """This holds in any phase. The same key with another body is a 422. A delete frees the key."""
    name = server.new_name()
    key = {"Idempotency-Key": f"key of {name}"}
    body = {"name": name, "parameters": {"steps": 2}}
    first = server.request("POST", f"/{server.collection}", json=body, headers=key)
    server.wait(name)
    again = server.request("POST", f"/{server.collection}", json=body, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    other = {**body, "parameters": {"steps": 3}}
    error_of(server.request("POST", f"/{server.collection}", json=other, headers=key), 422, "invalid")
    server.request("DELETE", name)
    assert server.request("POST", f"/{server.collection}", json=other, headers=key).status_code == 200


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\there", "\xe9"])
def test_bad_idempotency_keys_are_400(server: Server, key: str) -> None:
    """A bad key is empty, too long or not printable ASCII."""
    answer = server.request(
        "POST",
        f"/{server.collection}",
        json={"name": server.new_name()},
        headers={"Idempotency-Key": key.encode("latin-1")},
    )
    error_of(answer, 400, "bad_request")


def test_reuse_completes_an_equal_artifact_at_once(server: Server) -> None:
    """The new artifact keeps its data when the first one is deleted."""
    server.skip_for(Difference.REUSE_BY_STEP)
    first = server.made(text=f"reuse {server.new_name()}")
    parameters = {"text": server.get(f"{first}/input-parameters").json()["text"]}
    second = server.new_name()
    body = {"name": second, "parameters": parameters}
    assert server.request("POST", f"/{server.collection}?reuse=true", json=body).status_code == 200
    status = server.get(f"{second}/status").json()
    assert (status["phase"], status["reused_from"]) == ("completed", first)
    server.request("DELETE", first)
    assert server.get(f"{second}/data").text == parameters["text"]


def test_reuse_is_a_boolean(server: Server) -> None:
    """Any other value of `reuse` is a 400."""
    answer = server.request("POST", f"/{server.collection}?reuse=perhaps", json={"name": server.new_name()})
    error_of(answer, 400, "bad_request")


def test_equal_queued_requests_are_made_once(server: Server) -> None:
    """Before the worker makes an artifact, it looks once more for an equal completed one."""
    server.skip_for(Difference.REUSE_BY_STEP)
    holder = server.create(steps=1, pause=1.0, text=server.new_name())
    parameters = {"text": f"equal {server.new_name()}"}
    names = [server.new_name() for _ in range(10)]
    for name in names:
        body = {"name": name, "parameters": parameters}
        assert server.request("POST", f"/{server.collection}?reuse=true", json=body).status_code == 200
    statuses = [server.wait(name) for name in names]
    assert {status["phase"] for status in statuses} == {"completed"}
    assert [status["reused_from"] for status in statuses].count(None) == 1
    assert {server.get(f"{name}/data").text for name in names} == {parameters["text"]}
    server.wait(holder)


# One artifact


def test_status_has_every_key(server: Server, single: str) -> None:
    """The status has exactly the documented keys. A key that does not apply is null."""
    status = server.get(f"{single}/status").json()
    keys = {"result", "name", "phase", "reason", "position", "progress", "created", "started", "finished", "size"}
    keys |= {"digest", "reused_from"}
    keys |= {"steps", "run_id", "dagster_url"} if server.collection == "runs" else {"code_changed"}
    assert set(status) == keys
    assert (status["result"], status["phase"], status["position"]) == ("completed", "completed", None)
    assert set(status["progress"]) == {"done", "total", "unit", "message"}
    files = server.get(f"{single}/files").json()
    assert {entry["path"]: entry["size"] for entry in files}[server.path("file.txt")] == len(TEXT)
    assert (status["size"], len(status["digest"])) == (sum(entry["size"] for entry in files), 64)


def test_status_waits_for_the_result(server: Server) -> None:
    """`?wait=SECONDS` answers when the result is final, at the latest after this time."""
    name = server.create(steps=1, pause=60.0)
    began = time.monotonic()
    assert server.get(f"{name}/status", params={"wait": "0.2"}).json()["result"] == "in-progress"
    assert 0.15 < time.monotonic() - began < 4
    server.request("POST", f"{name}/cancel")
    assert server.get(f"{name}/status", params={"wait": "50"}).json()["phase"] == "cancelled"
    assert time.monotonic() - began < 40


def test_info_has_all_facts(server: Server, single: str) -> None:
    """The facts are status, parameters, digest, size and provenance."""
    info = server.get(single).json()
    assert {"status", "parameters", "digest", "size", "provenance"} <= set(info)
    assert info["digest"] == info["status"]["digest"]
    assert info["parameters"]["text"] == TEXT


def test_failed_artifact_has_a_reason(server: Server) -> None:
    """The reason is the tool's message; the artifact has no data."""
    name = server.create(fail="the sky fell")
    status = server.wait(name)
    reason = server.reason("the sky fell")
    assert (status["result"], status["phase"], status["reason"]) == ("failed", "failed", reason)
    assert "the sky fell" in error_of(server.get(f"{name}/data"), 404, "not_ready")["message"]
    error_of(server.get(f"{name}/files"), 404, "not_ready")


def test_cancel_ends_a_running_artifact(server: Server) -> None:
    """A second cancel changes nothing."""
    name = server.create(steps=100, pause=0.2)
    until(lambda: server.get(f"{name}/status").json()["phase"] == "running")
    assert server.request("POST", f"{name}/cancel").status_code == 200
    status = server.wait(name)
    assert (status["result"], status["phase"]) == ("failed", "cancelled")
    assert server.request("POST", f"{name}/cancel").json()["phase"] == "cancelled"


def test_cancel_right_after_creation_takes_effect(server: Server) -> None:
    """The worker may be about to start the work."""
    name = server.create(steps=100, pause=0.2)
    assert server.request("POST", f"{name}/cancel").status_code == 200
    assert server.wait(name)["phase"] == "cancelled"


def test_cancel_of_a_queued_artifact_takes_effect_at_once(server: Server) -> None:
    """A container makes one artifact at a time, so the second one is queued."""
    server.skip_for(Difference.CONCURRENT)
    running = server.create(steps=100, pause=0.2)
    until(lambda: server.get(f"{running}/status").json()["phase"] == "running")
    queued = server.create()
    assert server.get(f"{queued}/status").json()["position"] == 1
    assert server.request("POST", f"{queued}/cancel").json()["phase"] == "cancelled"
    server.request("DELETE", running)


def test_delete_frees_the_name(server: Server) -> None:
    """A second delete is a 404. The artifacts of a deleted run stay."""
    name = server.made()
    answer = server.request("DELETE", name)
    kept = {"kept": server.artifact_urls(name)} if server.collection == "runs" else {}
    assert (answer.status_code, answer.json()) == (200, {"result": "success", **kept})
    for path in ("", "/status", "/data", "/log", "/files", "/metrics", "/input-parameters", "/input-files"):
        error_of(server.get(f"{name}{path}"), 404, "not_found")
    error_of(server.request("DELETE", name), 404, "not_found")
    assert server.made(name=name) == name


def test_delete_cancels_a_running_artifact(server: Server) -> None:
    """The delete does not wait for the end of the work."""
    name = server.create(steps=100, pause=0.2)
    began = time.monotonic()
    assert server.request("DELETE", name).status_code == 200
    assert time.monotonic() - began < 15
    error_of(server.get(f"{name}/status"), 404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/status",
        "/data",
        "/data/x",
        "/files",
        "/log",
        "/metrics",
        "/metrics/loss/scalar",
        "/input-parameters",
        "/input-files",
        "/input-files/upload",
    ],
)
def test_unknown_name_is_not_found(server: Server, path: str) -> None:
    """Every route below an unknown name is a JSON 404."""
    error_of(server.get(f"nobody{path}"), 404, "not_found")


# Files


def test_data_of_one_file_is_the_file(server: Server, single: str) -> None:
    """The file is an attachment with length, strong ETag and digest. Its own path gives the same bytes."""
    answer = server.get(server.file_url(single))
    assert answer.content == TEXT.encode()
    assert answer.headers["Content-Length"] == str(len(TEXT))
    assert answer.headers["ETag"] == f'"{SHA256}"'
    assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.content == server.get(f"{single}/data/{server.path('file.txt')}").content


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [("0-0", 0, 1), ("1-3", 1, 4), ("2-", 2, 6), ("-2", 4, 6), ("-100", 0, 6), ("0-999", 0, 6)],
)
def test_range_is_a_206_with_exactly_its_bytes(server: Server, single: str, wanted: str, begin: int, end: int) -> None:
    """Clients put a file together from several ranges."""
    answer = server.get(server.file_url(single), headers={"Range": f"bytes={wanted}"})
    assert (answer.status_code, answer.content) == (206, TEXT.encode()[begin:end])
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(TEXT)}"
    assert answer.headers["Content-Length"] == str(end - begin)


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,3-4", "bytes=x", "lines=0-1", "bytes=3-1", "bytes", "bytes=--1", "bytes=1-x"]
)
def test_other_ranges_give_the_whole_file(server: Server, single: str, wanted: str) -> None:
    """These are several ranges, other units and malformed ranges."""
    answer = server.get(server.file_url(single), headers={"Range": wanted})
    assert (answer.status_code, answer.text) == (200, TEXT)


@pytest.mark.parametrize("wanted", ["bytes=6-", "bytes=100-200", "bytes=-0"])
def test_range_outside_the_file_is_416(server: Server, single: str, wanted: str) -> None:
    """The answer has the size of the file."""
    answer = server.get(server.file_url(single), headers={"Range": wanted})
    error_of(answer, 416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(TEXT)}"


def test_conditions_compare_the_strong_etag(server: Server, single: str) -> None:
    """The conditions are If-None-Match, If-Match and If-Range."""
    tag = f'"{SHA256}"'
    path = server.file_url(single)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = server.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert server.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    error_of(server.get(path, headers={"If-Match": '"other"'}), 412, "precondition_failed")
    assert server.get(path, headers={"If-Match": tag}).status_code == 200
    for if_range, status in ((tag, 206), ('"other"', 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200)):
        assert server.get(path, headers={"Range": "bytes=1-", "If-Range": if_range}).status_code == status


def test_files_lists_path_size_and_sha256(server: Server, made: str) -> None:
    """The digest of an artifact is the sha256 of this list as canonical JSON."""
    files = server.get(f"{made}/files").json()
    assert [entry["path"] for entry in files] == server.paths("a.txt", "d/b.txt", "upload.bin")
    assert files[0] == {"path": server.path("a.txt"), "size": len(TEXT), "sha256": SHA256}
    canonical = json.dumps(files, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert server.get(f"{made}/status").json()["digest"] == hashlib.sha256(canonical).hexdigest()


def test_several_files_are_a_zip(server: Server, made: str) -> None:
    """The zip has a Content-Length and exactly these files. A folder is a zip, too."""
    answer = server.get(f"{made}/data")
    assert answer.headers["Content-Type"] == "application/zip"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == server.paths("a.txt", "d/b.txt", "upload.bin")
        assert archive.read(server.path("d/b.txt")) == TEXT.encode()
    again = server.get(f"{made}/data", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    for path in (server.path("d"), server.path("d/")):
        with zipfile.ZipFile(io.BytesIO(server.get(f"{made}/data/{path}").content)) as archive:
            assert archive.namelist() == ["b.txt"]


@pytest.mark.slow
def test_zip_of_ten_thousand_files_is_complete(server: Server) -> None:
    """The zip has exactly the length in Content-Length."""
    name = server.made(files=[f"f{number % 100}/{number}" for number in range(10_000)], repeat=1)
    answer = server.get(f"{name}/data")
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == len(server.paths()) + 10_000
        assert archive.testzip() is None


def test_empty_file_and_large_file_are_served_whole(server: Server) -> None:
    """A range in the middle of the large file has the right bytes, too."""
    empty = server.made(repeat=0)
    answer = server.get(server.file_url(empty))
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")
    large = server.made(text="0123456789abcdef", repeat=2_000_000)
    content = b"0123456789abcdef" * 2_000_000
    assert server.get(server.file_url(large)).content == content
    part = server.get(server.file_url(large), headers={"Range": "bytes=1000001-30000000"})
    assert part.content == content[1000001:30000001]


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "../a.txt",
        "%2e%2e/a.txt",
        "d//b.txt",
        "/a.txt",
        "a.txt%00",
        "a.txt/b",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%ff",
        "d%5Cb.txt",
        "%0a",
        "a.txt%20",
        "a" * 5000,
        "d/" + "a" * 256,
    ],
)
def test_path_outside_the_artifact_is_not_found(server: Server, made: str, path: str) -> None:
    """This holds in any spelling of the path."""
    assert_not_found(server, f"{made}/data/{server.path(path)}")


@pytest.mark.parametrize("path", ["..", "../../../../../../etc/passwd", "d/../../../../etc/passwd"])
def test_dot_segments_reach_no_file(server: Server, made: str, path: str) -> None:
    """The server may resolve dot segments before it looks for a route."""
    answer = server.exchange(f"GET /{server.collection}/{made}/data/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b"Content-Type: application/json" in answer
    assert b"root:" not in answer


def test_artifact_in_progress_has_no_data(server: Server) -> None:
    """The error has the code `not_ready`."""
    name = server.create(steps=3, pause=0.5)
    for path in ("data", f"data/{server.path('file.txt')}", "files"):
        error_of(server.get(f"{name}/{path}"), 404, "not_ready")
    server.request("POST", f"{name}/cancel")


# Logs and metrics


def test_offset_skips_bytes_of_the_log(server: Server, made: str) -> None:
    """The log is UTF-8 text. An offset beyond the end gives an empty body."""
    answer = server.get(f"{made}/log")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "step 2\n" in answer.text
    assert server.get(f"{made}/log?offset=6").content == answer.content[6:]
    assert server.get(f"{made}/log?offset=999999").content == b""
    assert server.get(f"{made}/log?follow").content == answer.content


def test_followed_log_comes_line_by_line(server: Server) -> None:
    """The answer ends when the artifact is final."""
    name = server.create(steps=4, pause=0.4 + server.log_delay_s / 3)
    moments: dict[str, float] = {}
    with server.get(f"{name}/log?follow=1", stream=True) as answer:
        for line in answer.iter_lines(chunk_size=1):
            # A run's log has the time and the step before each line.
            moments[line.decode().rpartition(": ")[2]] = time.monotonic()
    steps = [moments[f"step {number}"] for number in range(4)]
    assert steps[-1] - steps[0] > 0.8
    assert "end" in moments


def test_followers_that_leave_free_their_threads(server: Server) -> None:
    """More clients than the server has threads disconnect while they wait. The server still answers."""
    name = server.create(steps=60, pause=0.5)
    for _ in range(3):
        connections = []
        for number in range(12):
            path = "log?follow" if number % 2 else "status?wait=60"
            connections.append(
                server.send(f"GET /{server.collection}/{name}/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            )
        time.sleep(0.3)
        for connection in connections:
            connection.close()
        deadline = time.monotonic() + 12
        while True:
            try:
                assert requests.get(f"{server.url}/healthz", timeout=2).status_code == 200
                break
            except requests.Timeout:
                assert time.monotonic() < deadline, "the server did not free its threads"
    server.request("DELETE", name)


def test_views_of_a_metric_have_the_same_points(server: Server, made: str) -> None:
    """The views are scalar, json and csv."""
    names = server.metrics("loss")
    expected = server.points([1.0, 0.5, 1 / 3])
    assert server.get(f"{made}/metrics").json() == names
    url = f"{made}/metrics/{names[-1]}"
    assert server.get(url).json() == ["scalar", "json", "csv"]
    scalar = server.get(f"{url}/scalar")
    lines = [line.split() for line in scalar.text.splitlines()]
    assert [(int(step), float(value)) for _, step, value in lines] == expected
    points = server.get(f"{url}/json").json()
    assert [(point["step"], point["value"]) for point in points] == expected
    table = list(csv.DictReader(io.StringIO(server.get(f"{url}/csv").text)))
    assert [(int(row["step"]), float(row["value"])) for row in table] == expected
    assert scalar.headers["X-Next-Offset"] == str(len(scalar.content))
    rest = server.get(f"{url}/scalar", params={"offset": scalar.headers["X-Next-Offset"]})
    assert (rest.status_code, rest.content) == (200, b"")
    for path in ("nothing", "nothing/scalar", f"{names[-1]}/picture", "..%2f/scalar"):
        error_of(server.get(f"{made}/metrics/{path}"), 404, "not_found")


def test_unknown_input_file_is_404(server: Server, made: str) -> None:
    """Only the files that a client uploaded are input files."""
    for file in ("nothing", "%00", "..%2fmanifest.json"):
        assert_not_found(server, f"{made}/input-files/{file}")


# Concurrent requests


def test_one_of_many_concurrent_creates_gets_the_name(server: Server) -> None:
    """Exactly one request gets 200. The others get 409."""
    name = server.new_name()
    statuses: list[int] = []

    def create() -> None:
        answer = requests.post(f"{server.url}/{server.collection}", json={"name": name}, timeout=30)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7
