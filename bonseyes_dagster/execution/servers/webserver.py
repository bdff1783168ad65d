"""`python -m bonseyes_dagster.execution.servers.webserver`: Dagster's webserver, for whom the gateway sends.

With a port, as in Docker, Dagster executes what comes in a link, mutations too: a page of any site could have a browser
ask for it, past the gateway, which alone knows whose pages may do so. The containers refuse that, too.
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
    """Refuse what has another Host than `names`, and what a browser asks that the gateway has not forwarded.

    A page of another site cannot set the header that tells the latter. A page whose name resolves to this server can:
    its Host gives it away.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have Dagster answer."""
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
        is_browsers = "origin" in headers or "sec-fetch-site" in headers
        if is_browsers and "x-forwarded-host" not in headers:
            raise ForbiddenError("A browser asks Dagster through the gateway only.")


def main() -> None:
    """Serve; arguments are those of `dagster-webserver`, and `--socket PATH` in the place of a host and a port."""
    path = _take_socket(sys.argv)
    # It looks these up at the start, and has no option for them.
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
            with suppress(KeyboardInterrupt):  # Dagster's answer to a signal
                server.run([listener])

    return serve


if __name__ == "__main__":
    main()
