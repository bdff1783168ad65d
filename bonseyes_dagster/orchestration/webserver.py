"""`python -m bonseyes_dagster.orchestration.webserver`: Dagster's webserver, for whom the gateway sends.

Its port is one of the machine's, and Dagster executes what comes in a link, mutations too: a page of any site could
have a browser ask for it, past the gateway, which alone knows whose pages may do so. The containers refuse that, too.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from dagster_webserver import cli
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.sockets import claim

__all__ = ["RefusePages", "main"]


class RefusePages:
    """Refuse what a browser asks that the gateway has not forwarded; a page cannot set the header that tells."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have Dagster answer."""
        if scope["type"] == "lifespan" or not _is_past_gateway(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            await PlainTextResponse("A browser asks Dagster through the gateway only.\n", 403)(scope, receive, send)


def _is_past_gateway(headers: Headers) -> bool:
    is_browsers = "origin" in headers or "sec-fetch-site" in headers
    return is_browsers and "x-forwarded-host" not in headers


def main() -> None:
    """Serve; arguments are those of `dagster-webserver`, and `--socket PATH` in the place of a host and a port."""

    def create_guarded(*arguments: Any, **options: Any) -> Starlette:
        app = create_app_from_workspace_process_context(*arguments, **options)
        app.add_middleware(RefusePages)
        return app

    # It looks this up at the start, and has no option for it.
    vars(cli)[create_app_from_workspace_process_context.__name__] = create_guarded
    path = _take_socket(sys.argv)
    if path is not None:
        vars(cli)[cli.host_dagster_ui_with_workspace_process_context.__name__] = _at_socket(path, create_guarded)
    cli.main()  # type: ignore[no-untyped-call]


def _take_socket(argv: list[str]) -> Path | None:
    """Remove `--socket PATH` from a command line and return the path."""
    if "--socket" not in argv:
        return None
    index = argv.index("--socket")
    _, path = argv[index], argv[index + 1]
    del argv[index : index + 2]
    return Path(path)


def _at_socket(path: Path, create_app: Callable[..., Starlette]) -> Callable[..., None]:
    def serve(
        context: object,
        host: str | None,
        port: int | None,
        path_prefix: str,
        log_level: str,
        live_data_poll_rate: int | None = None,
    ) -> None:
        app = create_app(context, path_prefix, live_data_poll_rate, lifespan=cli._lifespan)
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
