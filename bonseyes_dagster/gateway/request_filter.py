"""Decide whether a request passes the gateway and where it goes, and answer the gateway's own routes.

The embedded gateway and nginx's access service use it.
"""

from __future__ import annotations

import re

from aiohttp import web

from bonseyes_dagster.errors import BadRequestError, ForbiddenError
from bonseyes_dagster.gateway import access, login
from bonseyes_dagster.gateway.headers import secure
from bonseyes_dagster.gateway.routes import Target, match
from bonseyes_dagster.urls import HEALTHZ

__all__ = ["RequestFilter", "is_websocket"]

# The limit of the containers, too.
HEADERS_BYTES = 32_768


class RequestFilter:
    """Applies the access rules, and answers the gateway's own routes."""

    def __init__(self, rules: access.AccessRules) -> None:
        self._rules = rules
        self._login = login.Login(rules)

    def target(self, request: web.BaseRequest) -> Target | None:
        """Return the target of a request, or None if `answer` must answer it; raise the error that refuses it."""
        _check_form(request)
        access.check_host(request.headers.get("Host"), self._rules)
        target = match(request.raw_path.partition("?")[0])
        path = _own_path(request)
        changes = is_websocket(request) or path == login.LOGOUT
        access.check_site(request.method, request.headers, changes=changes)
        is_own = path in (login.LOGIN, login.LOGOUT, HEALTHZ) or target.redirect is not None
        if is_own or not self._is_signed_in(request):
            return None
        _check_query(request, target)
        if is_websocket(request) and target.route.websockets:
            _check_handshake(request)
        return target

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request for which `target` returned None."""
        response = await self._answer(request)
        secure(response.headers)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = _own_path(request)
        if path == login.LOGIN:
            return await self._login.sign_in(request)
        if not self._is_signed_in(request):
            if access.bearer_token(request.headers) is not None:
                await self._login.slow_down()
            return _ask_to_sign_in(request)
        if path == login.LOGOUT:
            return self._login.sign_out(request.cookies)
        if path == HEALTHZ:
            return web.json_response({"status": "ok"})
        raw_path, mark, query = request.raw_path.partition("?")
        return web.Response(status=308, headers={"Location": f"{match(raw_path).redirect}{mark}{query}"})

    def secrets(self, request: web.BaseRequest) -> set[str]:
        """Return the names of headers, and `cookie:NAME`, that the gateway must not forward."""
        if not self._rules.token:
            return set()
        secret = {f"cookie:{access.session_cookie(self._rules)}"}
        return secret | {"authorization"} if access.bearer_token(request.headers) is not None else secret

    def _is_signed_in(self, request: web.BaseRequest) -> bool:
        return self._login.is_signed_in(request.headers, request.cookies)


def is_websocket(request: web.BaseRequest) -> bool:
    """Tell whether the client asks for a websocket."""
    return request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket"


def _own_path(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[0].rstrip("/") or "/"


def _check_form(request: web.BaseRequest) -> None:
    if not request.raw_path.startswith("/"):
        raise BadRequestError("The request target must be a path that begins with a slash.")
    if not re.fullmatch(r"[!-~]*", request.raw_path) or "#" in request.raw_path:
        raise BadRequestError("The request target must be printable ASCII without a #; percent-encode all else.")
    if len(request.headers.getall("Host", [])) > 1:
        raise BadRequestError("The request has several Host headers; it must have one.")
    if sum(len(name) + len(value) for name, value in request.raw_headers) > HEADERS_BYTES:
        raise BadRequestError(f"The headers are too large together; the limit is {HEADERS_BYTES} bytes.")


def _check_query(request: web.BaseRequest, target: Target) -> None:
    """Refuse a query in a URL: another site's link could make a browser execute it."""
    if target.executes and request.method != "POST" and "?" in request.raw_path and not is_websocket(request):
        raise ForbiddenError("The gateway does not execute a query from a URL: send it by POST.")


def _check_handshake(request: web.BaseRequest) -> None:
    version = request.headers.get("Sec-WebSocket-Version")
    if version != "13" or not re.fullmatch(r"[+/0-9A-Za-z]{22}==", request.headers.get("Sec-WebSocket-Key", "")):
        raise BadRequestError("A websocket needs Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key of 16 bytes.")


def _ask_to_sign_in(request: web.BaseRequest) -> web.Response:
    navigates = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    if request.method in ("GET", "HEAD") and navigates and "text/html" in request.headers.get("Accept", ""):
        return web.Response(status=303, headers={"Location": login.sign_in_url(request.raw_path)})
    raise access.unauthorized()
