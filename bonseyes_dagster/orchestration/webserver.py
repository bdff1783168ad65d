"""`python -m bonseyes_dagster.orchestration.webserver`: Dagster's webserver, for whom the gateway sends.

Its port is one of the machine's, and Dagster executes what comes in a link, mutations too: a page of any site could
have a browser ask for it, past the gateway, which alone knows whose pages may do so. The containers refuse that, too.
"""

from __future__ import annotations

from typing import Any

from dagster_webserver import cli
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

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
    """Serve; arguments are those of `dagster-webserver`."""

    def create_guarded(*arguments: Any, **options: Any) -> Starlette:
        app = create_app_from_workspace_process_context(*arguments, **options)
        app.add_middleware(RefusePages)
        return app

    # It looks this up at the start, and has no option for it.
    vars(cli)[create_app_from_workspace_process_context.__name__] = create_guarded
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
