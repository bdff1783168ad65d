"""The services of an embedded project: their sockets, addresses and environments."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.embedded.services import Service, Services
from bonseyes_dagster.embedded.socket_folder import SocketFolder
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.folder import Project, find_project
from bonseyes_dagster.project.port import check_port
from bonseyes_dagster.project.service_names import CONTAINER_KINDS
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system import sockets

TOOL = "name: {name}\ndescription: d\nentry_point: m:create\noutput_type: t\n"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with two tools and a definitions file."""
    for folder in ("containers/import", "components/images/containers/training"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "tool.yml").write_text(TOOL.format(name=folder.rsplit("/", 1)[-1]))
    (tmp_path / "definitions.py").write_text("")
    project = Project(tmp_path)
    yield project
    SocketFolder(project).remove()


def _services(project: Project, settings: Settings) -> Services:
    project.prepare()
    folder = SocketFolder(project)
    folder.make()
    return Services(project, settings, folder, "mark")


def _all(services: Services) -> list[Service]:
    return [
        services.gateway(),
        *services.dagster(),
        *services.pipelines(["digits"]),
        *services.tools(),
        *services.fixed(),
    ]


def test_every_part_of_a_project_has_a_service(project: Project) -> None:
    """The parts are tools, pipelines, Dagster's four services, dashboard, TensorBoard and gateway."""
    names = {service.name: service.kind for service in _all(_services(project, Settings()))}
    assert names == {
        "gateway": "gateway",
        "code-server": "dagster",
        "dagster-webserver": "dagster",
        "run-server": "dagster",
        "dagster-daemon": "dagster",
        "digits": "pipeline",
        "import": "tool",
        "training": "tool",
        "dashboard": "dashboard",
        "visualization": "visualization",
    }


def test_only_the_gateway_gets_the_token(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool's code sees the environment of its container."""
    monkeypatch.setenv("BONSEYES_TOKEN", "secret")
    for service in _all(_services(project, Settings(token="secret"))):
        has_token = "secret" in (*service.environ.values(), *service.argv)
        assert has_token == (service.name == "gateway"), service.name


def test_no_service_gets_secrets_of_the_shell(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get the usual variables, and those in BONSEYES_PASS_ENV."""
    for name in ("AWS_SECRET_ACCESS_KEY", "http_proxy", "UWSGI_INI", "DATABASE_URL"):
        monkeypatch.setenv(name, "of the shell")
    services = _all(_services(project, Settings(pass_env=("DATABASE_*",))))
    for service in services:
        assert [name for name, value in service.environ.items() if value == "of the shell"] == ["DATABASE_URL"]


def test_each_container_has_its_own_volume_and_address(project: Project) -> None:
    """Every service also knows the addresses of the others."""
    services = _services(project, Settings(port=8123))
    containers = [service for service in _all(services) if service.kind in CONTAINER_KINDS]
    addresses = services.addresses([service.name for service in containers])
    assert len(set(addresses.values())) == len(containers)
    for service in containers:
        assert addresses[service.name] == sockets.url_of(service.argv[-1])
        assert service.environ["BONSEYES_VOLUME"] == str(project.state_folder / "volumes" / service.name)
        assert service.environ["BONSEYES_ADDRESSES"] == str(project.addresses)
        assert service.environ["BONSEYES_PORT"] == "8123"


def test_only_the_gateway_has_a_port(project: Project) -> None:
    """Every user of the machine can connect to a port."""
    for service in _all(_services(project, Settings(port=8123))):
        words = " ".join((*service.argv, *service.environ.values()))
        assert ("127.0.0.1:8123" in service.argv) == (service.name == "gateway")
        assert not {"-h", "-p", "--host", "--port"} & set(service.argv), words


def test_port_in_use_is_refused_with_the_process_that_uses_it() -> None:
    """The check comes before anything is started."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Port {port} .*by process .*--port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_project_is_found_from_its_folders(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Outside of a project, there is an error."""
    assert find_project(project.folder / "components" / "images") == project
    assert find_project(project.folder) == project
    with pytest.raises(SettingsError, match="not in a project"):
        find_project(tmp_path_factory.mktemp("elsewhere"))
