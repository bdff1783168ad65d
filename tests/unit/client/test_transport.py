"""Calls are retried where that is safe, and errors become exceptions with a clear message."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster import errors
from bonseyes_dagster.client import Container, Project, _transport
from bonseyes_dagster.client._transport import Transport, _is_internal
from tests.unit.client.scripted_server import Answer, ScriptedServer, error

DESCRIPTION = {"name": "training", "artifacts": ["/artifacts"], "parameters": {}, "output_type": "m", "version": "1"}


def test_unavailable_server_is_asked_again(server: ScriptedServer, container: Container) -> None:
    """A 503, a 502, a closed connection and an incomplete answer all lead to a retry."""
    server.on(
        "GET",
        "/",
        error(503, "unavailable"),
        Answer(drop=True),
        Answer(DESCRIPTION, cut_after=9),
        Answer(b"<html>bad gateway</html>", 502),
        Answer(DESCRIPTION),
    )
    assert container.describe().name == "training"
    assert server.count("GET", "/") == 5


def test_create_is_repeated_with_the_same_key(server: ScriptedServer, container: Container) -> None:
    """The key tells the server that the second POST is a retry of the first."""
    server.on("POST", "/artifacts", Answer(drop=True), Answer({"result": "success", "name": "a", "url": "x"}))
    container.create("a", files={"f": b"bytes"})
    first, second = server.calls
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == second.body


def test_retries_end_after_retry_s(server: ScriptedServer) -> None:
    """The caller gets the error of the last try."""
    server.on("GET", "/", error(503, "unavailable", "still starting"))
    started = time.monotonic()
    with pytest.raises(errors.UnavailableError, match="still starting"):
        Container(server.url, retry_s=0.3).describe()
    assert time.monotonic() - started < 5
    assert server.count("GET", "/") >= 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", errors.NotFoundError),
        (404, "not_ready", errors.NotReadyError),
        (409, "name_taken", errors.ConflictError),
        (413, "too_large", errors.TooLargeError),
        (422, "invalid", errors.InvalidError),
        (429, "queue_full", errors.QueueFullError),
        (507, "storage_full", errors.StorageFullError),
        (401, "unauthorized", errors.UnauthorizedError),
    ],
)
def test_errors_are_typed_and_not_repeated(
    server: ScriptedServer, container: Container, status: int, code: str, kind: type[errors.BonseyesError]
) -> None:
    """A container's refusal is final; the error has its detail and its request id."""
    server.on("POST", "/artifacts", error(status, code, "because", {"size": "too big"}))
    with pytest.raises(kind, match="because") as raised:
        container.create("a")
    assert type(raised.value) is kind
    assert raised.value.detail == {"size": "too big"}
    assert raised.value.request_id == "r1"
    assert len(server.calls) == 1


def test_internal_error_is_not_repeated(server: ScriptedServer, container: Container) -> None:
    """A retry would most likely end in a 500 again."""
    server.on("GET", "/", Answer(b"<h1>oops</h1>", 500))
    with pytest.raises(errors.BonseyesError, match="answered 500"):
        container.describe()
    assert len(server.calls) == 1


@pytest.mark.parametrize("body", [b"<html>hello</html>", [1, 2], {"nothing": "known"}, b""])
def test_answer_outside_the_contract_raises_unexpected_answer(
    server: ScriptedServer, container: Container, body: object
) -> None:
    """Another server may listen at the address."""
    server.on("GET", "/", Answer(body))
    with pytest.raises(errors.UnexpectedAnswerError, match="is it a container of this project"):
        container.describe()


def test_redirects_are_not_followed(server: ScriptedServer) -> None:
    """The client must not send its token to another server."""
    server.on("GET", "/", Answer(b"", 302, {"Location": "http://elsewhere.example/"}))
    with pytest.raises(errors.UnexpectedAnswerError, match="elsewhere"):
        Container(server.url, token="secret").describe()


def test_refused_connection_gets_a_readable_reason() -> None:
    """The reason is the text of the operating system, not the `repr` of a library's exception."""
    with pytest.raises(
        errors.ConnectionFailedError, match=r"http://127\.0\.0\.1:9 does not answer: Connection refused\."
    ):
        Container("http://127.0.0.1:9", retry_s=0).describe()


def test_health_check_sends_one_request_and_never_raises(server: ScriptedServer, container: Container) -> None:
    """The server is not ready, then ready, then stopped."""
    server.on("GET", "/healthz", error(503, "unavailable"), Answer({"status": "ready"}))
    assert [container.is_healthy(), container.is_healthy()] == [False, True]
    server.stop()
    assert not container.is_healthy()


@pytest.mark.parametrize("url", ["", "training", "ftp://x", "http://", "http://[", "http://host:port"])
def test_invalid_base_url_is_refused_at_once(url: str) -> None:
    """The constructor refuses it, before the first request."""
    with pytest.raises(errors.InvalidError):
        Container(url)


def test_token_is_sent_with_every_request(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway needs it in requests for containers, too; a ~/.netrc must not replace it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.on("GET", "/containers/training/", Answer(DESCRIPTION))
    server.on("GET", "/pipelines", Answer([]))
    project = Project(server.url, "secret")
    project.container("training").describe()
    project.pipelines()
    Transport(server.url, token="secret").request("GET", "/pipelines")
    assert {call.headers["Authorization"] for call in server.calls} == {"Bearer secret"}


def test_no_cookie_is_kept(server: ScriptedServer, container: Container) -> None:
    """All containers share one session: a cookie of one must not reach another."""
    server.on("GET", "/", Answer(DESCRIPTION, headers={"Set-Cookie": "a=b"}))
    container.describe()
    container.describe()
    assert all("Cookie" not in call.headers for call in server.calls)


def test_proxy_of_the_environment_is_not_used_for_containers(
    server: ScriptedServer, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker passes its proxy settings to containers, but such a proxy cannot reach the project's network."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.on("GET", "/", Answer(DESCRIPTION))
    assert container.describe().name == "training"
    assert [_is_internal(host) for host in ("training", "localhost", "::1", "example.org", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_threads_share_few_connections(
    server: ScriptedServer, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred calls of ten threads use at most ten connections, and each gets its own answer."""
    made: list[object] = []
    import urllib3

    connect = urllib3.connection.HTTPConnection.connect
    monkeypatch.setattr(
        urllib3.connection.HTTPConnection, "connect", lambda self: (made.append(self), connect(self))[1]
    )
    server.on("GET", "/artifacts", lambda call: Answer([call.query["after"]]))
    wrong: list[str] = []

    def ask(thread: int) -> None:
        for number in range(10):
            name = f"t{thread}-{number}"
            wrong.extend([] if container.names(after=name) == [name] else [name])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert len(server.calls) == 100
    assert len(made) <= 10


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forked_child_opens_its_own_connections(server: ScriptedServer, container: Container) -> None:
    """A tool's child process uses a client that its parent has used."""
    server.on("GET", "/artifacts", lambda call: Answer([call.query["after"]]))
    container.names(after="parent")
    child = os.fork()
    if child == 0:
        ok = all(container.names(after=f"c{n}") == [f"c{n}"] for n in range(20))
        os._exit(0 if ok else 1)
    answers = [container.names(after=f"p{n}") for n in range(20)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert answers == [[f"p{n}"] for n in range(20)]


def test_unknown_kind_and_name_are_read_from_the_description(server: ScriptedServer) -> None:
    """The description of a pipeline says that its collection is /runs."""
    server.on("GET", "/", Answer({**DESCRIPTION, "name": "digits-cnn", "artifacts": ["/runs"]}))
    server.on("GET", "/runs", Answer(["first"]))
    container = Container(server.url)
    assert container.names() == ["first"]
    assert container.artifact("first").url == "http://digits-cnn/runs/first"
    assert server.count("GET", "/") <= 2


def test_pipeline_is_found_by_its_name_and_its_containers_name(server: ScriptedServer) -> None:
    """People use the pipeline's name, programs the container's."""
    server.on("GET", "/pipelines", Answer([{"name": "digits_cnn", "container": "digits-cnn", "description": ""}]))
    project = Project(server.url)
    assert project.pipeline("digits_cnn").base_url == project.pipeline("digits-cnn").base_url
    assert project.pipeline("digits-cnn").base_url == f"{server.url}/containers/digits-cnn"
    with pytest.raises(errors.NotFoundError, match="the pipelines are: digits-cnn"):
        project.pipeline("other")


def test_compressed_answer_is_refused(server: ScriptedServer) -> None:
    """A few kilobytes of gzip can unpack to gigabytes, and the client never asks for it."""
    bomb = gzip.compress(json.dumps({"name": " " * 10_000_000}).encode())
    server.on("GET", "/", Answer(bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(errors.UnexpectedAnswerError, match="Content-Encoding gzip; we asked for none"):
        Container(server.url, retry_s=0.0).describe()
    assert server.calls[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_answer_above_the_limit_is_refused(server: ScriptedServer, is_chunked: bool) -> None:
    """One byte too many is enough, with or without a Content-Length; the client does not read the rest."""
    content = b'"' + b"x" * 998 + b'"'
    answer = Answer(chunks=[content[:500], content[500:]]) if is_chunked else Answer(content)
    server.on("GET", "/", answer)
    transport = Container(server.url, retry_s=0.0).transport
    assert transport.get_json("/", str, limit_bytes=1000) == "x" * 998
    with pytest.raises(errors.UnexpectedAnswerError, match="more than 999 bytes"):
        transport.get_json("/", str, limit_bytes=999)


def test_slow_answer_ends_at_the_deadline(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece arrives within the timeout of one read, but the whole answer never ends."""

    def drip() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.04)
            yield b" "

    monkeypatch.setattr(_transport, "_WHOLE_ANSWER", 1)
    server.on("GET", "/", Answer(chunks=drip()))
    started = time.monotonic()
    with pytest.raises(errors.ConnectionFailedError, match="did not finish its answer in time"):
        Container(server.url, retry_s=0.0).transport.get_json("/", dict, read_timeout_s=0.5)
    assert time.monotonic() - started < 3


def test_redirect_sends_no_request_to_the_new_address(server: ScriptedServer) -> None:
    """A server must not choose where the client connects."""
    server.on("GET", "/", Answer(status=302, headers={"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(errors.UnexpectedAnswerError, match="redirects to"):
        Container(server.url, retry_s=0.0).describe()
    assert server.count("GET", "/elsewhere") == 0
