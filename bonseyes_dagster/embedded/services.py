"""The services of an embedded project: the command, the environment and the health check of each."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bonseyes_dagster.embedded import health
from bonseyes_dagster.embedded.fork_server import ForkServer
from bonseyes_dagster.embedded.leftovers import MARK
from bonseyes_dagster.embedded.socket_folder import SocketFolder
from bonseyes_dagster.execution.launching.run_protocol import default_socket
from bonseyes_dagster.execution.storage.instance import LOCATION
from bonseyes_dagster.project.environment import GATEWAY_ONLY, chosen_environ
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.service_names import CODE, DAEMON, RUNS, WEB
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system import sockets

__all__ = ["Kind", "Service", "Services"]

Kind = str
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service.

    `path` is its path at the gateway. `check` makes its health check when it starts. `needs` is a service that must be
    healthy before the first check, which would fail and may cost a lot. `is_forked` means that it imports Dagster, so
    that the fork server starts it.
    """

    name: str
    kind: Kind
    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None
    check: Callable[[], health.Check]
    needs: str | None = None
    is_forked: bool = False


class Services:
    """Builds the services of one project."""

    def __init__(self, project: Project, settings: Settings, folder: SocketFolder, mark: str) -> None:
        self._project = project
        self._mark = mark
        self._settings = settings
        self._sockets = folder

    def dagster(self) -> list[Service]:
        """Return the services of Dagster; they start first, because their start is the slowest."""
        project, code_socket, web_socket = self._project, self._sockets.path(CODE), self._sockets.path(WEB)
        workspace = str(project.dagster_home / "workspace.yaml")
        after_storage = ("--after", str(project.storage_made))
        after_code = (*after_storage, "--after", str(code_socket))
        definitions = ("-f", str(project.definitions), "-d", str(project.folder))
        code = ("-s", str(code_socket), *definitions, "--location-name", LOCATION)
        web = ("--socket", str(web_socket), "--path-prefix", "/dagster", "-w", workspace)
        database = project.dagster_home / "storage" / "history" / "runs.db"
        return [
            self._dagster(
                CODE,
                _waiting("bonseyes_dagster.execution.servers.code_server", *after_storage, "--", *code),
                lambda: health.connection_check(code_socket),
            ),
            self._dagster(
                WEB,
                _waiting("bonseyes_dagster.execution.servers.webserver", *after_code, "--", *web),
                lambda: health.http_check(web_socket, "/dagster/server_info"),
                path="/dagster/",
            ),
            self._dagster(
                RUNS,
                _waiting("bonseyes_dagster.orchestration.run_server", *after_storage, "--", *definitions),
                lambda: health.run_server_check(default_socket(project.dagster_home)),
            ),
            self._dagster(
                DAEMON,
                _waiting("dagster._daemon", *after_code, "--", "run", "-w", workspace),
                lambda: health.heartbeat_check(database, time.time()),
            ),
        ]

    def pipelines(self, names: Sequence[str]) -> list[Service]:
        """Return a container for each pipeline."""
        services = [self._container(name, "pipeline", BONSEYES_PIPELINE=name) for name in names]
        return [replace(service, needs=CODE, is_forked=True) for service in services]

    def tools(self) -> list[Service]:
        """Return a container for each tool folder."""
        volumes = str(self._project.volumes)
        return [
            self._container(name, "tool", BONSEYES_TOOL=str(folder), BONSEYES_VOLUMES=volumes)
            for name, folder in self._project.tools().items()
        ]

    def fixed(self) -> list[Service]:
        """Return the containers that every project has."""
        return [self._container("dashboard", "dashboard"), self._container("visualization", "visualization")]

    def fork_server(self) -> ForkServer:
        """Start the process that forks the services of Dagster."""
        return ForkServer(self._project.folder, self._environ("fork-server"))

    def gateway(self) -> Service:
        """Return the gateway, the only service with a port."""
        host, port = self._settings.host.strip("[]"), self._settings.port
        probe_host = {"0.0.0.0": HOST, "": HOST, "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        token = self._settings.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        environ = self._environ("gateway", BONSEYES_DAGSTER_URL=sockets.url_of(self._sockets.path(WEB)))
        environ |= {name: os.environ[name] for name in GATEWAY_ONLY if name in os.environ}
        bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return Service(
            name="gateway",
            kind="gateway",
            argv=_python("bonseyes_dagster.gateway", "--bind", bind),
            environ=environ,
            path="/",
            check=lambda: health.http_check((probe_host, port), "/healthz", headers),
        )

    def addresses(self, containers: Sequence[str]) -> dict[str, str]:
        """Return the base URL of each container."""
        return {name: sockets.url_of(self._sockets.path(name)) for name in containers}

    def _container(self, name: str, kind: Kind, **environ: str) -> Service:
        return Service(
            name=name,
            kind=kind,
            argv=_python(f"bonseyes_dagster.{kind}", "--bind", str(self._sockets.path(name))),
            environ=self._environ(name, **environ),
            path="/" if kind == "dashboard" else f"/containers/{name}/",
            check=lambda: health.http_check(self._sockets.path(name), "/healthz"),
        )

    def _dagster(
        self, name: str, argv: Sequence[str], check: Callable[[], health.Check], path: str | None = None
    ) -> Service:
        environ = self._environ(name)
        return Service(name=name, kind="dagster", argv=argv, environ=environ, path=path, check=check, is_forked=True)

    def _environ(self, name: str, **more: str) -> dict[str, str]:
        project = self._project
        return {
            **chosen_environ(os.environ, self._settings.pass_env),
            "PYTHONUNBUFFERED": "1",
            "DAGSTER_HOME": str(project.dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            MARK: self._mark,
            "BONSEYES_CONTAINER": name,
            "BONSEYES_PROJECT": str(project.folder),
            "BONSEYES_VOLUME": str(project.volume(name)),
            "BONSEYES_ADDRESSES": str(project.addresses),
            "BONSEYES_PORT": str(self._settings.port),
            "BONSEYES_URL": self._settings.gateway_url,
            **more,
        }


def _python(module: str, *arguments: str) -> list[str]:
    # -P: Python must not import modules from the working folder.
    return [sys.executable, "-P", "-m", module, *arguments]


def _waiting(module: str, *arguments: str) -> list[str]:
    return _python("bonseyes_dagster.embedded.wait_for_file", module, *arguments)
