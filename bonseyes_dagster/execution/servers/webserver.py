"""Dagster's webserver behind the gateway. `python -m bonseyes_dagster.execution.servers.webserver` starts it.

In a docker project, the webserver listens at a port. Dagster executes GraphQL in a URL's query, even mutations. So a
page of any site could make a browser change data by a request that does not pass the gateway. Only the gateway knows
which pages may send requests. This module therefore refuses browsers' requests that did not pass the gateway.
Containers refuse such requests, too.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvicorn
from dagster_webserver import cli
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from bonseyes_dagster.errors import ForbiddenError, SettingsError, request_id
from bonseyes_dagster.execution.servers.dagster_internals import IWorkspaceProcessContext
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.hosts import check_own_host, own_names
from bonseyes_dagster.system.sockets import claim

__all__ = ["RefusePages", "main"]

_NAME = "dagster-webserver"


class RefusePages:
    """Refuses requests with a Host that is not in `names`, and requests of browsers that the gateway did not forward.

    A page of another site cannot set the header X-Forwarded-Host. A page whose host name resolves to this server can
    set this header, but its requests have its own name as Host.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to Dagster."""
        try:
            if scope["type"] != "lifespan":
                self._check(Headers(scope=scope))
        except ForbiddenError as error:
            refusal = JSONResponse(error.to_json(request_id("")), error.http_status)
            await (WebSocketClose() if scope["type"] == "websocket" else refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        check_own_host(hosts[0] if len(hosts) == 1 else None, self._names)
        is_from_browser = "origin" in headers or "sec-fetch-site" in headers
        if is_from_browser and "x-forwarded-host" not in headers:
            raise ForbiddenError(
                "This request of a browser did not pass the gateway; open Dagster at the address of the gateway."
            )


def main() -> None:
    """Serve, with the arguments of `dagster-webserver`. `--socket PATH` replaces `--host` and `--port`."""
    path = _take_socket(sys.argv)
    # Dagster has no option for these two functions, but looks up their names when it starts.
    if path is None:
        vars(cli)[create_app_from_workspace_process_context.__name__] = _create_guarded
    else:
        # No browser connects to a unix socket.
        vars(cli)[cli.host_dagster_ui_with_workspace_process_context.__name__] = _at_socket(path)
    cli.main()  # type: ignore[no-untyped-call]


def _create_guarded(*arguments: Any, **options: Any) -> Starlette:
    app = create_app_from_workspace_process_context(*arguments, **options)
    app.add_middleware(RefusePages, names=own_names(Settings.from_environ(), _NAME, *_hosts_in(sys.argv)))
    return app


def _hosts_in(argv: list[str]) -> list[str]:
    return [value for name, value in pairwise(argv) if name in ("-h", "--host")]


def _take_socket(argv: list[str]) -> Path | None:
    """Remove `--socket PATH` from a command line and return the path."""
    if "--socket" not in argv:
        return None
    index = argv.index("--socket")
    path = argv[index + 1]
    del argv[index : index + 2]
    return Path(path)


def _at_socket(path: Path) -> Callable[..., None]:
    def serve(
        context: IWorkspaceProcessContext[Any],
        host: str | None,
        port: int | None,
        path_prefix: str,
        log_level: str,
        live_data_poll_rate: int | None = None,
    ) -> None:
        app = create_app_from_workspace_process_context(
            context, path_prefix, live_data_poll_rate, lifespan=cli._lifespan
        )
        try:
            claim(path)
        except SettingsError as error:
            sys.exit(error.message)
        with socket.socket(socket.AF_UNIX) as listener:
            mask = os.umask(0o177)
            listener.bind(str(path))
            os.umask(mask)
            server = uvicorn.Server(uvicorn.Config(app, log_level=log_level))
            with suppress(KeyboardInterrupt):  # Dagster's reaction to a signal
                server.run([listener])

    return serve


if __name__ == "__main__":
    main()
