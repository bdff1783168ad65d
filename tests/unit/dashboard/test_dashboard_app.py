"""The dashboard's JSON API and its page, with containers that are real HTTP servers."""

from __future__ import annotations

import html
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from bonseyes_dagster.dashboard import app as dashboard
from bonseyes_dagster.dashboard import containers as module
from bonseyes_dagster.settings import Settings
from tests.unit.visualization.artifact_server import ArtifactServer


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Yield a dashboard with a running tool, a running pipeline and one container that is down."""
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    with ArtifactServer() as tool, ArtifactServer("runs") as pipeline:
        yield Project(tmp_path, {"training": tool.url, "digits": pipeline.url, "down": "http://127.0.0.1:1"})


class Project:
    """The dashboard's own client and settings."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self.addresses = folder / "addresses.json"
        self.addresses.write_text(json.dumps(addresses))
        self.settings = Settings(volume=folder / "volume", addresses=self.addresses)

    def client(self) -> FlaskClient:
        """Start the dashboard."""
        return dashboard.create(self.settings).test_client()


def register(client: FlaskClient, name: Any) -> Any:
    """Register and return the answer."""
    return client.post("/containers", json={"name": name})


def test_registering_twice_is_harmless(project: Project) -> None:
    """The answer holds the container's URL."""
    client = project.client()
    for _ in range(2):
        answer = register(client, "training")
        assert (answer.status_code, answer.json) == (
            200,
            {"result": "success", "name": "training", "url": "http://localhost/containers/training"},
        )
    assert list(project.client().get("/containers/").json) == ["training", "digits"]


def test_containers_are_listed_with_their_descriptions(project: Project) -> None:
    """A container that is down has {}; others in the addresses file are listed if they make artifacts."""
    client = project.client()
    register(client, "down")
    assert client.get("/containers").json == {
        "down": {},
        "digits": {"name": "fake", "artifacts": ["/runs"]},
        "training": {"name": "fake", "artifacts": ["/artifacts"]},
    }


def test_the_last_description_is_kept(project: Project, tmp_path: Path) -> None:
    """Neither a container that is down nor a restart of the dashboard removes a description."""
    client = project.client()
    register(client, "digits")
    assert client.get("/pipelines").json == [{"name": "fake", "container": "digits", "description": ""}]
    project.addresses.write_text(json.dumps({"digits": "http://127.0.0.1:1"}))
    for _ in range(2):
        assert client.get("/pipelines").json == [{"name": "fake", "container": "digits", "description": ""}]
        client = project.client()


def test_descriptions_are_cached_for_a_while(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every page load sends a request to every container."""
    monkeypatch.setattr(module, "FRESH_S", 60.0)
    client = project.client()
    client.get("/containers")
    project.addresses.write_text(json.dumps({"training": "http://127.0.0.1:1"}))
    began = time.monotonic()
    assert "artifacts" in client.get("/containers").json["training"]
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {"name": "a b"}}, 422),
        ({"json": {"name": None}}, 422),
        ({"json": {}}, 422),
        ({"json": ["training"]}, 422),
        ({"data": "{", "content_type": "application/json"}, 400),
        ({"data": '{"name": "training", "x": NaN}', "content_type": "application/json"}, 400),
        ({"data": '{"name": "training", "x": 1e999}', "content_type": "application/json"}, 400),
        ({"data": b"\xff", "content_type": "application/json"}, 400),
        ({"data": "[" * 50_000, "content_type": "application/json"}, 400),
        ({"data": " " * 100_000, "content_type": "application/json"}, 413),
        ({"data": {"name": "training"}}, 415),
    ],
)
def test_wrong_registrations_are_refused(project: Project, options: dict[str, Any], status: int) -> None:
    """Each with the contract's error."""
    answer = project.client().post("/containers", **options)
    assert answer.status_code == status
    assert set(answer.json["error"]) == {"code", "message", "detail", "request_id"}
    if status == 422:
        assert list(answer.json["error"]["detail"]) == ["name"]


def test_the_page_has_no_inline_scripts_or_styles(project: Project) -> None:
    """The policy forbids them; the linked files exist."""
    client = project.client()
    register(client, "down")
    answer = client.get("/")
    assert answer.mimetype == "text/html"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    for forbidden in ("<style", " style=", "<script>", " onclick", "javascript:"):
        assert forbidden not in answer.text
    for name in ("dashboard.js", "dashboard.css", "icon.svg"):
        (path,) = [part.split('"')[0] for part in answer.text.split('"/') if part.startswith(f"static/{name}")]
        with client.get(f"/{path}") as file:
            assert file.status_code == 200


def test_the_page_escapes_descriptions(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A description is text, whatever it holds."""
    evil = {"name": "x", "artifacts": ["/artifacts"], "description": "<script>alert(1)</script>\"'"}
    monkeypatch.setattr(ArtifactServer, "answer", lambda self, path, query: evil)
    client = project.client()
    register(client, "training")
    page = client.get("/").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_page_shows_changed_code(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list marks a container whose files differ from the loaded ones."""
    client = project.client()
    register(client, "training")
    assert "code changed since start" not in client.get("/").text
    description = {"name": "x", "artifacts": ["/artifacts"], "code_changed": True}
    monkeypatch.setattr(ArtifactServer, "answer", lambda self, path, query: description)
    assert "code changed since start" in client.get("/").text


def test_parameters_keep_their_order(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form shows them in the order of the tool's author."""
    parameters = {name: {"type": "string"} for name in ("zebra", "apple", "mango")}
    body = {"name": "x", "artifacts": ["/artifacts"], "parameters": parameters}
    monkeypatch.setattr(ArtifactServer, "answer", lambda self, path, query: body)
    client = project.client()
    assert list(client.get("/containers").json["training"]["parameters"]) == ["zebra", "apple", "mango"]
    known = html.unescape(client.get("/").text.partition('data-known="')[2].partition('"')[0])
    assert list(json.loads(known)["training"]["parameters"]) == ["zebra", "apple", "mango"]


@pytest.mark.parametrize(
    ("prefix", "root"),
    [
        ("", ""),
        ("/containers/dashboard", ""),
        ("/lab", "/lab"),
        ("/lab/containers/dashboard", "/lab"),
        ('"><script>', ""),
    ],
)
def test_the_page_knows_the_gateways_root(project: Project, prefix: str, root: str) -> None:
    """Its links lead through the gateway, under whichever path the page was opened."""
    page = project.client().get("/", headers={"X-Forwarded-Prefix": prefix}).text
    assert f'data-root="{root}"' in page
    assert f'href="{root}/containers/visualization/"' in page


def test_health_reports_a_damaged_registry(project: Project) -> None:
    """With the reason, so that an operator knows what to repair."""
    client = project.client()
    assert client.get("/healthz").status_code == 200
    assert project.settings.volume is not None
    (project.settings.volume / "containers.json").write_text("nonsense")
    answer = client.get("/healthz").json
    assert answer is not None and "it is now containers.json.damaged-" in answer["notices"][0]


def test_openapi_names_every_route(project: Project) -> None:
    """The document must match the routes."""
    client = project.client()
    paths = set(client.get("/openapi.json").json["paths"])
    assert paths == {"/", "/pipelines", "/containers", "/containers/{name}", "/healthz", "/metrics", "/openapi.json"}
    assert "bonseyes_containers" in client.get("/metrics").text


@pytest.mark.parametrize("name", ["router", "metadata.example.org", "evil"])
def test_a_name_outside_the_project_is_refused(project: Project, name: str) -> None:
    """Else the dashboard and TensorBoard would send requests to a foreign host again and again."""
    client = project.client()
    answer = register(client, name)
    assert (answer.status_code, answer.json["error"]["code"]) == (403, "forbidden")
    assert name not in client.get("/containers").json


@pytest.mark.parametrize(
    ("addresses", "status"),
    [
        (["172.18.0.5"], 200),
        (["fd00::5"], 200),
        (["172.18.0.5", "93.184.215.14"], 403),
        (["93.184.215.14"], 403),
        (["127.0.0.1"], 403),
        (["169.254.169.254"], 403),
        ([], 403),
    ],
)
def test_without_an_address_file_a_container_must_have_a_private_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, addresses: list[str], status: int
) -> None:
    """Docker's DNS returns the addresses of the project's network."""

    def resolve(*_: Any, **__: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]

    client = dashboard.create(Settings(volume=tmp_path)).test_client()
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert register(client, "training").status_code == status
    assert register(client, "training.example.org").status_code == 403


def test_a_foreign_name_in_the_registry_gets_no_requests_and_can_be_removed(project: Project) -> None:
    """An older registry may hold any name; its old description is not shown."""
    client = project.client()
    assert project.settings.volume is not None
    entries = {"training": {}, "evil.example.org": {"name": "evil", "artifacts": ["/runs"]}}
    (project.settings.volume / "containers.json").write_text(json.dumps({"containers": entries}))
    assert client.get("/containers").json["evil.example.org"] == {}
    assert client.get("/pipelines").json == [{"name": "fake", "container": "digits", "description": ""}]
    assert client.delete("/containers/evil.example.org").status_code == 200
    assert "evil.example.org" not in client.get("/containers").json
    assert client.delete("/containers/evil.example.org").status_code == 404


@pytest.mark.parametrize("is_slow", [False, True])
def test_an_endless_answer_does_not_delay_the_page(
    project: Project, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    """The page shows the container as missing, and all others."""
    monkeypatch.setattr(module, "ANSWERS_TIMEOUT_S", 0.5)
    tool_port = json.loads(project.addresses.read_text())["training"].rpartition(":")[2]

    def answer(self: ArtifactServer, path: str, query: Any) -> Any:
        if self.url.endswith(tool_port):
            if is_slow:
                time.sleep(1.5)
            return {"name": "x" * (2 << 20), "artifacts": ["/artifacts"]}
        return {"name": "fake", "artifacts": ["/runs"]}

    monkeypatch.setattr(ArtifactServer, "answer", answer)
    client = project.client()
    register(client, "training")
    began = time.monotonic()
    found = client.get("/containers").json
    assert time.monotonic() - began < 1.2
    assert (found["training"], found["digits"]["artifacts"]) == ({}, ["/runs"])
