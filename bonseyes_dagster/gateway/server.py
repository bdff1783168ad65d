"""The HTTP server of the embedded gateway and of nginx's access service, with JSON errors, limits and a log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict

from bonseyes_dagster.errors import BadRequestError, BonseyesError, ForbiddenError, request_id
from bonseyes_dagster.gateway.headers import secure

__all__ = ["IDLE_S", "error_response", "serve"]

log = logging.getLogger(__name__)

# The timeout for the headers of a request, and for an idle connection.
IDLE_S = 75.0
STOP_S = 2.0

# Takes the request and its id; may raise BonseyesError.
Answer = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
# Takes both ends of a new connection; with False, the server refuses all its requests.
Admission = Callable[[tuple[str, int], tuple[str, int]], bool]


async def serve(
    answer: Answer,
    host: str,
    port: int,
    *,
    log_level: int = logging.INFO,
    admits: Admission | None = None,
    stopped: Callable[[], Awaitable[None]] | None = None,
) -> web.ServerRunner:
    """Listen and log each request at `log_level`; `runner.cleanup()` stops the server and calls `stopped`.

    Raises OSError when the port is in use.
    """
    runner = _Runner(_Server(answer, log_level, admits), stopped)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def error_response(error: BonseyesError, identity: str) -> web.Response:
    """Return the contract's answer for an error."""
    headers = secure(CIMultiDict({"X-Request-Id": identity, "Cache-Control": "no-store"}))
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.http_status == 503:
        headers["Retry-After"] = "1"
    body = json.dumps(error.to_json(identity)).encode()
    return web.Response(status=error.http_status, body=body, content_type="application/json", headers=headers)


class _Server(web.Server):
    """Answers and logs requests; every error answer is JSON."""

    def __init__(self, answer: Answer, log_level: int, admits: Admission | None) -> None:
        super().__init__(self._handle, handler_cancellation=True)
        self._answer = answer
        self._log_level = log_level
        self.admits = admits

    def __call__(self) -> RequestHandler:
        options: dict[str, Any] = {"keepalive_timeout": IDLE_S, "auto_decompress": False, "access_log": None}
        return _Connection(self, loop=self._loop, **options)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        begun_s = time.monotonic()
        identity = request_id(request.headers.get("X-Request-Id", ""))
        status: int | str = "aborted"
        try:
            _check_user(request)
            response = await self._answer(request, identity)
            status = response.status
        except BonseyesError as error:
            response = error_response(error, identity)
            status = response.status
        finally:
            duration_ms = (time.monotonic() - begun_s) * 1000
            # Without the query: it may be secret.
            path = _escaped(request.raw_path.partition("?")[0])
            log.log(self._log_level, "%s %s %s %.1f ms %s", request.method, path, status, duration_ms, identity)
        return response


def _check_user(request: web.BaseRequest) -> None:
    if isinstance(request.protocol, _Connection) and not request.protocol.is_admitted:
        raise ForbiddenError(
            "This gateway answers only to the user who runs it; set BONSEYES_TOKEN to let others use it with the token."
        )


class _Connection(RequestHandler):
    """A client's connection whose malformed requests are answered in JSON too."""

    __slots__ = ("is_admitted",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check once for each connection which user is at its other end."""
        super().connection_made(transport)
        admits = self._manager.admits if isinstance(self._manager, _Server) else None
        ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        # Once the peer has disconnected, it has no name.
        self.is_admitted = admits is None or (all(ends) and admits(ends[0][:2], ends[1][:2]))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has already begun.")
        if status == 400:
            error: BonseyesError = BadRequestError(f"This is not valid HTTP: {message or exc}")
        else:
            log.error("%s %s failed", request.method, _escaped(request.raw_path), exc_info=exc)
            error = BonseyesError("The gateway failed; see its log.")
        response = error_response(error, request_id(""))
        response.force_close()
        return response


class _Runner(web.ServerRunner):
    __slots__ = ("_stopped",)

    def __init__(self, server: web.Server, stopped: Callable[[], Awaitable[None]] | None) -> None:
        super().__init__(server, shutdown_timeout=STOP_S)
        self._stopped = stopped

    async def shutdown(self) -> None:
        if self._stopped is not None:
            await self._stopped()


def _escaped(path: str) -> str:
    """Return a path without control characters: it must not add lines to the log or colours to a terminal."""
    return ascii(path)[1:-1]
