"""The HTTP application of a container, in this process: routes, queries, headers and bodies, for all backends."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bonseyes_dagster.description import load_description
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.app import create_app
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.rebuild import ensure_index
from bonseyes_dagster.tool.worker.state import worker_lock
from tests.contract import memory_app
from tests.contract.serving import SAMPLE
from tests.fuzz.cases import CASES, fuzz
from tests.fuzz.mutation import mutated_bytes, mutated_json, mutated_text, odd_text
from tests.fuzz.wsgi import check_answer, send_request

_JSON = "application/json"
_FORM = "multipart/form-data; boundary=bb"
_PART = b'--bb\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
_QUERIES = (
    "",
    "?limit=2&after=made",
    "?detail=1",
    "?wait=0",
    "?offset=3",
    "?reuse=true",
    "?follow=0",
    "?artifacts=false",
)
_SEGMENTS = (
    "",
    "/status",
    "/data",
    "/data/file.txt",
    "/files",
    "/log",
    "/input-parameters",
    "/input_files",
    "/metrics",
)
_SEGMENTS += ("/metrics/loss", "/metrics/loss/csv", "/metrics/loss/json", "/cancel", "/input-files/upload", "/data/")
_PATHS = ("/", "/healthz", "/metrics", "/openapi.json")
_WORDS = ("/", "..", "%2e%2e", "%00", "%ff", "&", "=", "?", ";", "%0d%0a", "a" * 200)
_HEADERS = {
    "Host": "localhost",
    "Idempotency-Key": "key",
    "X-Forwarded-Host": "example.com",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/containers/sample",
    "X-Request-Id": "abc",
    "Range": "bytes=0-3",
    "If-Range": '"x"',
    "If-Match": '"x", W/"y"',
    "If-None-Match": "*",
    "Accept": "text/html;q=0.5, */*",
    "Cookie": "a=b; c=d",
    "Origin": "http://example.com",
    "Transfer-Encoding": "chunked",
    "Content-Length": "3",
    "Expect": "100-continue",
    "If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 GMT",
    "Authorization": "Basic YTpi",
}


@pytest.fixture(params=["memory artifacts", "memory runs", "tool"])
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the sample tool's application on each backend. It has an artifact or a run with the name `made`."""
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)
    backend, _, kind = request.param.partition(" ")
    if backend == "memory":
        made = memory_app.create(kind, 1 << 20, tmp_path / "files")
        collection = f"/{kind}"
    else:
        volume = Volume(tmp_path / "volume")
        volume.make()
        ensure_index(volume, "sample")
        made = create_app(load_description(SAMPLE), volume, Settings(upload_limit_bytes=1 << 20, disk_reserve_bytes=0))
        collection = "/artifacts"
    made.collection = collection
    body = json.dumps({"name": "made", "parameters": {"steps": 2}}).encode()
    assert send_request(made, "POST", collection, [("Content-Type", _JSON)], body).status == 200
    assert send_request(made, "GET", f"{collection}/made/status?wait={2 if backend == 'memory' else 0}").status == 200
    with contextlib.ExitStack() as stack:
        if backend == "tool":  # without this lock /healthz reports that there is no worker
            stack.enter_context(worker_lock(volume.worker_lock, lambda: False))
        yield made


def make_form(random: Random, value: dict[str, Any]) -> bytes:
    """Return a valid or an almost valid form."""
    data = json.dumps(value["parameters"]).encode()
    name = str(value["name"]).encode(errors="replace")
    form = _PART % (b"name", b"", name) + _PART % (b"data", b"", data)
    form += _PART % (b"upload", b'; filename="a.bin"', b"content") + b"--bb--\r\n"
    return mutated_bytes(random, form, (b"--bb", b"\r\n", b'name="data"', b"filename*=UTF-8''%ff", b"\0"))


def make_body(random: Random) -> tuple[str, bytes]:
    """Return a content type and a body. The body is valid or almost valid for the content type."""
    value = {
        "name": f"n{random.randrange(50)}",
        "parameters": {"text": "x", "files": ["a/b.txt"], "steps": 1, "pause": 0},
    }
    changed = mutated_json(random, value)
    if random.random() < 0.5:
        return _FORM, make_form(
            random, changed if isinstance(changed, dict) and changed.keys() == value.keys() else value
        )
    text = json.dumps(changed).encode()
    return _JSON, mutated_bytes(
        random, text, (b"NaN", b"[" * 2000, b"9" * 5000, b"\\ud800")
    ) if random.random() < 0.3 else text


def make_request(random: Random, collection: str) -> tuple[str, str, list[tuple[str, str]], bytes]:
    """Return a valid request with a few changes: method, target, headers and body."""
    method = random.choice(("GET", "GET", "GET", "POST", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT"))
    content_type, body = make_body(random) if method in ("POST", "PATCH", "PUT") else ("", b"")
    if method == "PATCH" and random.random() < 0.7:
        body = json.dumps(mutated_json(random, {"name": "made"})).encode()
    path = random.choice((f"{collection}/made{random.choice(_SEGMENTS)}", random.choice(_PATHS), collection))
    if method == "POST" and random.random() < 0.8:
        path = collection
    if method == "DELETE":
        path = f"{collection}/n{random.randrange(50)}"
    target = path + random.choice(_QUERIES)
    if random.random() < 0.5:
        target = "/" + mutated_text(random, target[1:], _WORDS).replace(" ", "%20")
    headers = [("Content-Type", mutated_text(random, content_type) if random.random() < 0.1 else content_type)]
    for name in random.sample(sorted(_HEADERS), random.choice((0, 0, 1, 2, 4))):
        value = mutated_text(random, _HEADERS[name]) if random.random() < 0.7 else _HEADERS[name]
        headers.append((name, value.replace("\r", "").replace("\n", "").replace("\0", "")))
    return method, target, headers, body


def test_no_request_makes_a_container_fail(app: Any) -> None:
    """Each answer follows the contract."""

    def check(case: tuple[str, str, list[tuple[str, str]], bytes]) -> None:
        method, target, headers, body = case
        if "follow" in target or "wait" in target:  # a long poll exceeds the time limit of a case
            target = target.replace("follow", "offset").replace("wait", "limit")
        check_answer(send_request(app, method, target, headers, body))

    fuzz(f"requests of {app.collection}", lambda random: make_request(random, app.collection), check, cases=CASES)
    assert send_request(app, "GET", "/").status == 200


@pytest.mark.parametrize("host", ["example..com", "a" * 64 + ".com", "[::::]", "example.com:99999", "."])
def test_the_location_leaves_out_an_invalid_host(app: Any, host: str) -> None:
    """The container has already created the artifact, so the answer must not fail."""
    body = json.dumps({"name": "there", "parameters": {"steps": 0}}).encode()
    answer = send_request(app, "POST", app.collection, [("Content-Type", _JSON), ("X-Forwarded-Host", host)], body)
    assert answer.status == 200
    assert answer.headers["location"] == f"{app.collection}/there"


def test_an_accepted_text_parameter_is_returned_unchanged(app: Any) -> None:
    """It may hold any characters."""

    def check(text: str) -> None:
        body = json.dumps({"name": "n", "parameters": {"text": text, "steps": 0}}).encode()
        answer = send_request(app, "POST", app.collection, [("Content-Type", _JSON)], body)
        check_answer(answer)
        if answer.status == 200:
            kept = send_request(app, "GET", f"{app.collection}/n/input-parameters")
            assert json.loads(kept.body)["text"] == text
            assert send_request(app, "DELETE", f"{app.collection}/n").status == 200

    fuzz("texts", lambda random: mutated_text(random, "text") + odd_text(random), check, cases=max(CASES // 20, 20))
