"""The embedded gateway: one aiohttp server that applies the access rules and then the table of routes."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict

from bonseyes_dagster.client.addresses import Addresses
from bonseyes_dagster.errors import BadRequestError, BonseyesError
from bonseyes_dagster.gateway import access, login
from bonseyes_dagster.gateway.forward import forward
from bonseyes_dagster.gateway.headers import request_headers, secure
from bonseyes_dagster.gateway.routes import Target, match
from bonseyes_dagster.gateway.upstreams import Upstreams
from bonseyes_dagster.gateway.websocket import forward_websocket, is_websocket
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import HEALTHZ

__all__ = ["Gateway", "start"]

log = logging.getLogger(__name__)

# A client has so long to send a request's headers, and an idle connection is kept so long.
IDLE_S = 75.0
STOP_S = 2.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Gateway:
    """Answers one request: access rules, then its own routes, then the table's."""

    def __init__(self, rules: access.Rules, upstreams: Upstreams) -> None:
        self._rules = rules
        self._upstreams = upstreams
        self._login = login.Login(rules)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer, log and never let an error out as anything but JSON."""
        begun_s = time.monotonic()
        request_id = _request_id(request)
        status: int | str = "aborted"
        try:
            response = await self._answer(request, request_id)
            status = response.status
        except BonseyesError as error:
            response = error_response(error, request_id)
            status = response.status
        finally:
            duration_ms = (time.monotonic() - begun_s) * 1000
            # Not the query: it may hold what is nobody's business.
            path = request.raw_path.partition("?")[0]
            log.info("%s %s %s %.1f ms %s", request.method, path, status, duration_ms, request_id)
        return response

    async def _answer(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        _check_form(request)
        access.check_host(request.headers.get("Host"), self._rules)
        raw_path, _, query = request.raw_path.partition("?")
        target = match(raw_path)
        path = raw_path.rstrip("/") or "/"
        changes = is_websocket(request) or path == login.LOGOUT or raw_path in target.route.changing_gets
        access.check_site(request.method, request.headers, changes=changes)
        if path == login.LOGIN:
            return _secured(await self._login.sign_in(request))
        if not self._login.is_signed_in(request.headers, request.cookies):
            return _secured(_ask_to_sign_in(request))
        if path == login.LOGOUT:
            return _secured(self._login.sign_out(request.cookies))
        if path == HEALTHZ:
            return _secured(web.json_response({"status": "ok"}))
        if target.redirect is not None:
            location = target.redirect + (f"?{query}" if query else "")
            return _secured(web.Response(status=308, headers={"Location": location}))
        return await self._forward(request, target, request_id)

    async def _forward(self, request: web.BaseRequest, target: Target, request_id: str) -> web.StreamResponse:
        base_url = self._upstreams.base_url(target)
        headers = request_headers(
            request.headers, target, client=request.remote or "", scheme=request.scheme, secrets=self._secrets(request)
        )
        headers["X-Request-Id"] = request_id
        session = self._upstreams.session(target, request.method)
        if is_websocket(request) and target.route.websockets:
            return await forward_websocket(request, target, base_url, session, headers)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        return await forward(request, target, base_url, session, headers)

    def _secrets(self, request: web.BaseRequest) -> set[str]:
        if not self._rules.token:
            return set()
        secret = {f"cookie:{access.session_cookie(self._rules)}"}
        return secret | {"authorization"} if access.bearer_token(request.headers) is not None else secret


def _check_form(request: web.BaseRequest) -> None:
    if not request.raw_path.startswith("/"):
        raise BadRequestError("The request target must be a path that begins with a slash.")
    if len(request.headers.getall("Host", [])) > 1:
        raise BadRequestError("A request has one Host.")


def _request_id(request: web.BaseRequest) -> str:
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _ask_to_sign_in(request: web.BaseRequest) -> web.Response:
    navigates = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    if request.method in ("GET", "HEAD") and navigates and "text/html" in request.headers.get("Accept", ""):
        return web.Response(status=303, headers={"Location": login.sign_in_url(request.raw_path)})
    raise access.unauthorized()


def _secured(response: web.Response) -> web.Response:
    secure(response.headers)
    return response


def error_response(error: BonseyesError, request_id: str) -> web.Response:
    """Return the contract's error body."""
    headers = secure(CIMultiDict({"X-Request-Id": request_id, "Cache-Control": "no-store"}))
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.http_status == 503:
        headers["Retry-After"] = "1"
    body = json.dumps(error.to_json(request_id)).encode()
    return web.Response(status=error.http_status, body=body, content_type="application/json", headers=headers)


class _Connection(RequestHandler):
    """A client's connection whose malformed requests are answered in JSON too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("The answer had begun.")
        if status == 400:
            error: BonseyesError = BadRequestError(f"This is not HTTP: {message or exc}")
        else:
            log.error("%s %s failed", request.method, request.raw_path, exc_info=exc)
            error = BonseyesError("The gateway failed; its log says how.")
        response = error_response(error, secrets.token_hex(8))
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.handle, handler_cancellation=True)

    def __call__(self) -> RequestHandler:
        options: dict[str, Any] = {"keepalive_timeout": IDLE_S, "auto_decompress": False, "access_log": None}
        return _Connection(self, loop=self._loop, **options)


async def start(settings: Settings, host: str, port: int) -> web.ServerRunner:
    """Listen; `runner.cleanup()` stops. Raises SettingsError before listening, OSError when the port is taken."""
    rules = access.rules_from_settings(settings, host, port)
    upstreams = Upstreams(Addresses.from_settings(settings), settings.dagster_url)
    runner = _Runner(_Server(Gateway(rules, upstreams)), upstreams)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


class _Runner(web.ServerRunner):
    __slots__ = ("_upstreams",)

    def __init__(self, server: web.Server, upstreams: Upstreams) -> None:
        super().__init__(server, shutdown_timeout=STOP_S)
        self._upstreams = upstreams

    async def shutdown(self) -> None:
        await self._upstreams.close()
