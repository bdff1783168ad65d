"""What nginx asks about each request before it forwards one: the door of the embedded gateway as a small service.

nginx sends the request's method, target and headers without its body, and as well

    X-Gateway-Question     `pass`: may it pass, and where to? 204 says so in the headers named below, 403 that it may
                           not; `answer`: this time in full, as the client shall get it, with the request's body
    X-Gateway-Request      the request's first line as it came, for a target that is no path
    X-Gateway-Containers   the containers that nginx knows
"""

from __future__ import annotations

import logging

from aiohttp import web

from bonseyes_dagster.errors import BadRequestError, BonseyesError, NotFoundError, UnavailableError
from bonseyes_dagster.gateway.access import Rules, rules_from_settings
from bonseyes_dagster.gateway.door import Door, is_websocket
from bonseyes_dagster.gateway.headers import content_of, request_headers
from bonseyes_dagster.gateway.routes import DAGSTER, Target
from bonseyes_dagster.gateway.server import serve
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import HEALTHZ

__all__ = ["ANSWERS", "CONTAINERS", "QUESTION", "REQUEST", "Questions", "start"]

QUESTION = "X-Gateway-Question"
REQUEST = "X-Gateway-Request"
CONTAINERS = "X-Gateway-Containers"
# What a 204 says, each in its header X-Gateway-NAME.
ANSWERS = ("Container", "Name", "Path", "Prefix", "Stripped", "Upgrade", "Cookie", "Authorization", "Content")


class Questions:
    """Answers nginx."""

    def __init__(self, rules: Rules) -> None:
        self._door = Door(rules)

    async def answer(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """Return what nginx asked for; raise the error that the client shall get."""
        question = request.headers.get(QUESTION)
        if question is None and request.raw_path == HEALTHZ:
            return web.json_response({"status": "ok"})
        if question == "pass":
            return self._pass(request)
        target = self._target(request)
        if target is not None:
            raise UnavailableError("The rules of access have changed just now. Try again.")
        return await self._door.answer(request)

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
        target = self._door.target(request)
        known = request.headers.get(CONTAINERS, "").split(" ")
        if target is not None and target.container not in (DAGSTER, *known):
            raise NotFoundError(f"There is no container {target.container!r}.")
        return target

    def _headers(self, request: web.BaseRequest, target: Target) -> dict[str, str]:
        kept = request_headers(request.headers, target, client="", scheme="", secrets=self._door.secrets(request))
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
    """Listen for nginx; the rules are those of a gateway that is published where the settings say."""
    rules = rules_from_settings(settings, settings.host, settings.port)
    # nginx logs each request, with the same id.
    return await serve(Questions(rules).answer, host, port, log_level=logging.DEBUG)
