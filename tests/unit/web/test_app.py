"""The behaviour of every container's application, whatever its service is."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from bonseyes_dagster.errors import UnavailableError
from bonseyes_dagster.web.app import create_app, json_response
from bonseyes_dagster.web.telemetry import Telemetry


def make(check_health: Any = lambda: None, gauges: Mapping[str, float] | None = None) -> Flask:
    """Return an application with a failing route and a route with a hyphen."""
    app = create_app(
        "test",
        description=None,
        check_health=check_health,
        gauges=lambda: gauges or {},
        openapi={"openapi": "3.1.0"},
    )

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("the secret reason")

    @app.get("/two-words/<name>")
    def words(name: str) -> dict[str, str]:
        return {"name": name}

    return app


def test_an_unexpected_exception_is_logged_and_hidden(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a JSON 500 without the text; the log has the traceback and the request id."""
    with caplog.at_level(logging.ERROR):
        answer = make().test_client().get("/fails", headers={"X-Request-Id": "id-1"})
    assert answer.status_code == 500
    assert answer.json["error"]["code"] == "internal"
    assert answer.json["error"]["request_id"] == "id-1"
    assert "secret" not in answer.text
    assert "id-1" in caplog.text
    assert "RuntimeError: the secret reason" in caplog.text


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE])
def test_a_failing_volume_is_503_with_the_reason(number: int) -> None:
    """An error of the disk is not a fault of the server's code."""

    def check() -> None:
        raise OSError(number, os.strerror(number), "/volume/index.sqlite")

    answer = make(check).test_client().get("/healthz")
    assert answer.status_code == 503
    assert os.strerror(number) in answer.json["error"]["message"]


def test_not_ready_is_503_with_the_reason() -> None:
    """/healthz also says when to ask again."""

    def check() -> None:
        raise UnavailableError("the volume is not mounted")

    answer = make(check).test_client().get("/healthz")
    assert answer.status_code == 503
    assert answer.json["error"]["message"] == "the volume is not mounted"
    assert answer.headers["Retry-After"]


def test_a_route_with_underscores_counts_as_its_twin() -> None:
    """`two_words` is `two-words`, also in the metrics; a hyphen in a value stays."""
    client = make().test_client()
    assert client.get("/two-words/a-b").json == client.get("/two_words/a-b/").json == {"name": "a-b"}
    assert 'route="/two-words/<name>",status="200"} 2.0' in client.get("/metrics").text


def test_invented_methods_and_paths_add_no_series() -> None:
    """Clients cannot fill the metrics with their own labels."""
    client = make().test_client()
    for number in range(5):
        client.open(f"/nothing/{number}", method=f"METHOD{number}")
    text = client.get("/metrics").text
    assert 'bonseyes_http_requests_total{method="other",route="unmatched",status="404"} 5.0' in text


def test_gauges_have_labels() -> None:
    """A gauge's name may have labels; a name without the prefix gets it."""
    telemetry = Telemetry(lambda: {"queue_length": 3, 'artifacts{phase="queued"}': 1, 'artifacts{phase="failed"}': 2})
    families = {family.name: family for family in text_string_to_metric_families(telemetry.render().decode())}
    assert families["bonseyes_queue_length"].samples[0].value == 3
    phases = {sample.labels["phase"]: sample.value for sample in families["bonseyes_artifacts"].samples}
    assert phases == {"queued": 1, "failed": 2}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks_become_null(value: float) -> None:
    """Every client can read the answer."""
    assert json_response({"a": [value, 1.5, {"b": (value,)}]}).json == {"a": [None, 1.5, {"b": [None]}]}


def test_lone_surrogates_are_escaped() -> None:
    """A broken filename can contain one; it must not fail the answer."""
    assert json_response(["\udcff"]).get_data() == b'["\\udcff"]'


def test_a_page_cannot_send_changes_past_the_gateway() -> None:
    """A form of another site to the container's own port is refused; through the gateway it is accepted."""
    app = make()

    @app.post("/changes")
    def changes() -> dict[str, str]:
        return {}

    client = app.test_client()
    page = {"Origin": "http://elsewhere.example"}
    refused = client.post("/changes", headers=page)
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "forbidden")
    assert client.post("/changes").status_code == 200
    assert client.post("/changes", headers=page | {"X-Forwarded-Host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/two-words/a", headers=page).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "twins.evil.example", "localhost.evil.example", ""]
)
def test_a_foreign_host_gets_nothing(host: str) -> None:
    """A page whose name resolves to this server can set every other header; it must neither read nor write."""
    client = make().test_client()
    for path in ("/two-words/a", "/", "/healthz", "/metrics", "/none"):
        answer = client.get(path, headers={"Host": host, "X-Forwarded-Host": "127.0.0.1:8000"})
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "forbidden")


def test_a_service_answers_to_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """In docker, other containers use the service's name; health checks and users use localhost or an address."""
    monkeypatch.setenv("BONSEYES_CONTAINER", "Learn")
    monkeypatch.setenv("BONSEYES_ALLOWED_HOSTS", "gpu-box:8080")
    client = make().test_client()
    for host in ("learn", "Learn:80", "localhost:81", "127.0.0.1:8080", "[::1]:80", "172.18.0.3", "gpu-box:8080"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200, host


def test_a_path_adds_no_line_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A newline in a path would forge a record, an escape sequence would control the operator's terminal."""
    app = make()

    @app.get("/broken/<name>")
    def broken(name: str) -> None:
        raise RuntimeError

    with caplog.at_level(logging.ERROR):
        app.test_client().get("/broken/a%0aERROR%20forged%1b%5b2J")
    (message,) = (record.getMessage() for record in caplog.records if "broken" in record.getMessage())
    assert message.isprintable()
    assert r"a\nERROR forged\x1b[2J" in message
