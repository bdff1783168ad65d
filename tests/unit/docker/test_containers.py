"""The engine's description of a container becomes the state of a service."""

from __future__ import annotations

from typing import Any

import pytest

from bonseyes_dagster.docker.containers import ServiceContainer, project_state_of, url_of

URL = "http://127.0.0.1:8000"


def _container(service: str, command: str = "", *, restart: str = "unless-stopped", **state: Any) -> ServiceContainer:
    raw = {
        "Id": service,
        "Config": {"Labels": {"com.docker.compose.service": service}, "Cmd": command.split() or None},
        "HostConfig": {"RestartPolicy": {"Name": restart}, "PortBindings": {}},
        "NetworkSettings": {"Ports": {}},
        "State": {"Status": "running", "ExitCode": 0, "Error": "", "StartedAt": "2026-01-01T00:00:00.123456789Z"}
        | state,
        "RestartCount": 0,
    }
    found = ServiceContainer.of(raw)
    assert found is not None
    return found


def _health(status: str, output: str = "") -> dict[str, Any]:
    return {"Health": {"Status": status, "Log": [{"Output": output}]}}


def test_kind_and_url_of_a_service_follow_from_its_command() -> None:
    """The compose file has no other sign of the kind."""
    containers = [
        _container("resize", "python -m bonseyes_dagster.tool --bind 0.0.0.0:80"),
        _container("digits", "python -m bonseyes_dagster.pipeline --bind digits.front:80"),
        _container("dashboard", "python -m bonseyes_dagster.dashboard"),
        _container("gateway", "nginx"),
        _container("dagster-webserver", "dagster-webserver -p 3000"),
        _container("postgres", "postgres"),
    ]
    services = {each.name: (each.kind, each.url) for each in project_state_of(containers, url=URL).services}
    assert services == {
        "resize": ("tool", f"{URL}/containers/resize/"),
        "digits": ("pipeline", f"{URL}/containers/digits/"),
        "dashboard": ("dashboard", f"{URL}/"),
        "gateway": ("gateway", f"{URL}/"),
        "dagster-webserver": ("dagster", f"{URL}/dagster/"),
        "postgres": ("dagster", None),
    }


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (_health("healthy"), ("healthy", None)),
        (_health("starting"), ("starting", None)),
        (_health("unhealthy", "a line\nno answer\n"), ("unhealthy", "no answer")),
        (_health("unhealthy", '{"error": {"message": "The disk is full."}}'), ("unhealthy", "The disk is full.")),
        ({}, ("healthy", None)),
        ({"Status": "created"}, ("waiting", None)),
        ({"Status": "exited", "ExitCode": 137}, ("stopped", "exited with code 137")),
        ({"Status": "restarting", "ExitCode": 1}, ("restarting", "exited with code 1")),
        ({"Status": "paused"}, ("stopped", "paused")),
    ],
)
def test_container_state_and_reason(state: dict[str, Any], expected: tuple[str, str | None]) -> None:
    """The states have the names that `bonseyes status` shows."""
    container = _container("tool", **state)
    assert (container.state, container.reason) == expected


def test_finished_one_shot_services_are_not_listed() -> None:
    """A running one-shot service is `starting`; a failed one is `stopped`."""
    prepared = _container("prepare", restart="no", Status="exited")
    assert project_state_of([prepared], url=URL).services == ()
    (service,) = project_state_of([_container("prepare", restart="no")], url=URL).services
    assert service.state == "starting"
    failed = _container("prepare", restart="no", Status="exited", ExitCode=1)
    (service,) = project_state_of([failed], url=URL).services
    assert (service.state, service.reason) == ("stopped", "exited with code 1")


def test_service_without_a_container_is_waiting() -> None:
    """The project is not up before all its services have containers."""
    project_state = project_state_of([_container("tool")], url=URL, expected=["tool", "gateway"])
    assert [(each.name, each.state) for each in project_state.services] == [("tool", "healthy"), ("gateway", "waiting")]
    assert project_state.phase == "starting"
    assert project_state_of([_container("tool")], url=URL, expected=["tool"]).phase == "up"


def test_containers_of_runs_are_not_services() -> None:
    """They have Compose's label for one-off containers."""
    labels = {"com.docker.compose.service": "run-server", "com.docker.compose.oneoff": "True"}
    assert ServiceContainer.of({"Config": {"Labels": labels}}) is None
    assert ServiceContainer.of({"Config": {"Labels": None}}) is None


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:9000"), ("0.0.0.0", "http://127.0.0.1:9000"), ("::1", "http://[::1]:9000")],
)
def test_project_url_has_the_published_port_of_the_gateway(host: str, url: str) -> None:
    """The port in the compose file may have changed since the start."""
    gateway = _container("gateway")
    gateway.raw["NetworkSettings"]["Ports"]["8080/tcp"] = [{"HostIp": host, "HostPort": "9000"}]
    assert url_of([gateway], "") == url
