"""The access service: nginx asks it about each request before it forwards the request.

It applies the same `RequestFilter` as the embedded gateway. nginx sends the request's method, target and headers
without its body, and these headers:

    X-Gateway-Question     `pass`: may the request pass, and what is its target? The answer is 204 with the headers
                           below, or 403. `answer`: send the full answer for the client; here the body comes, too
    X-Gateway-Request      the first line of the request as it came, because its target may not be a path
    X-Gateway-Containers   the containers that nginx knows
"""

from __future__ import annotations

import logging

from aiohttp import web

from bonseyes_dagster.errors import BadRequestError, BonseyesError, NotFoundError, UnavailableError
from bonseyes_dagster.gateway.access import AccessRules, rules_from_settings
from bonseyes_dagster.gateway.headers import content_of, request_headers
from bonseyes_dagster.gateway.request_filter import RequestFilter, is_websocket
from bonseyes_dagster.gateway.routes import DAGSTER, Target
from bonseyes_dagster.gateway.server import serve
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import HEALTHZ

__all__ = ["ANSWERS", "CONTAINERS", "QUESTION", "REQUEST", "AccessService", "start"]

QUESTION = "X-Gateway-Question"
REQUEST = "X-Gateway-Request"
CONTAINERS = "X-Gateway-Containers"
# A 204 has these values, each in a header X-Gateway-NAME.
ANSWERS = ("Container", "Name", "Path", "Prefix", "Stripped", "Upgrade", "Cookie", "Authorization", "Content")


class AccessService:
    """Answers nginx's questions about requests."""

    def __init__(self, rules: AccessRules) -> None:
        self._filter = RequestFilter(rules)

    async def answer(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """Return the answer to nginx's question; raise the error for the client."""
        question = request.headers.get(QUESTION)
        if question is None and request.raw_path == HEALTHZ:
            return web.json_response({"status": "ok"})
        if question == "pass":
            return self._pass(request)
        target = self._target(request)
        if target is not None:
            raise UnavailableError("The access rules have just changed; try again.")
        return await self._filter.answer(request)

    def _pass(self, request: web.BaseRequest) -> web.Response:
        try:
            target = self._target(request)
        except BonseyesError:
            target = None
        if target is None:
            return web.Response(status=403)
        return web.Response(status=204, headers=self._headers(request, target))

    def _target(self, request: web.BaseRequest) -> Target | None:
        line = request.headers.get(REQUEST, "").split(" ")
        if len(line) != 3 or not line[1].startswith("/"):
            raise BadRequestError("The request target must be a path that begins with a slash.")
        target = self._filter.target(request)
        known = request.headers.get(CONTAINERS, "").split(" ")
        if target is not None and target.container not in (DAGSTER, *known):
            raise NotFoundError(f"There is no container {target.container!r}.")
        return target

    def _headers(self, request: web.BaseRequest, target: Target) -> dict[str, str]:
        kept = request_headers(request.headers, target, client="", scheme="", secrets=self._filter.secrets(request))
        _, mark, query = request.raw_path.partition("?")
        answers = {
            "Container": target.container,
            "Name": target.name,
            "Path": f"{target.path}{mark}{query}",
            "Prefix": target.prefix,
            "Stripped": target.prefix if target.route.strips else "",
            "Upgrade": "websocket" if is_websocket(request) and target.route.websockets else "",
            "Cookie": kept.get("Cookie", ""),
            "Authorization": kept.get("Authorization", ""),
            "Content": content_of(target),
        }
        return {f"X-Gateway-{name}": value for name, value in answers.items() if value}


async def start(settings: Settings, host: str, port: int) -> web.ServerRunner:
    """Listen for nginx; the settings give the published host and port of the gateway, `host` and `port` do not."""
    rules = rules_from_settings(settings, settings.host, settings.port)
    # nginx logs each request already, with the same id.
    return await serve(AccessService(rules).answer, host, port, log_level=logging.DEBUG)
