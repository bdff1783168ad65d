"""The embedded gateway: it checks each request, and forwards it to the target in the table of routes."""

from __future__ import annotations

from aiohttp import web

from bonseyes_dagster.client.addresses import Addresses
from bonseyes_dagster.gateway.access import AccessRules, rules_from_settings
from bonseyes_dagster.gateway.forward import forward
from bonseyes_dagster.gateway.headers import request_headers
from bonseyes_dagster.gateway.request_filter import RequestFilter, is_websocket
from bonseyes_dagster.gateway.server import serve
from bonseyes_dagster.gateway.upstreams import Upstreams
from bonseyes_dagster.gateway.websocket import forward_websocket
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.peers import Peers

__all__ = ["Gateway", "start"]


class Gateway:
    """Answers the gateway's own routes, and forwards all other requests to their upstream."""

    def __init__(self, rules: AccessRules, upstreams: Upstreams) -> None:
        self._filter = RequestFilter(rules)
        self._upstreams = upstreams

    async def answer(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """Return the answer; raise BonseyesError for an error answer."""
        target = self._filter.target(request)
        if target is None:
            return await self._filter.answer(request)
        base_url = self._upstreams.base_url(target)
        secrets = self._filter.secrets(request)
        client = request.remote or ""
        headers = request_headers(request.headers, target, client=client, scheme=request.scheme, secrets=secrets)
        headers["X-Request-Id"] = request_id
        session = self._upstreams.session(target, request.method)
        if is_websocket(request) and target.route.websockets:
            return await forward_websocket(request, target, base_url, session, headers)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        large_bodies = self._upstreams.large_bodies(target)
        return await forward(request, target, base_url, session, headers, large_bodies)


async def start(settings: Settings, host: str, port: int) -> web.ServerRunner:
    """Listen; `runner.cleanup()` stops. Raises SettingsError before listening, OSError when the port is taken."""
    rules = rules_from_settings(settings, host, port)
    upstreams = Upstreams(Addresses.from_settings(settings), settings.dagster_url)
    # Without a token, only this machine can connect. But other users may have accounts on it.
    peers = None if rules.token else Peers()

    async def close() -> None:
        await upstreams.close()
        if peers is not None:
            peers.close()

    admits = peers.admits if peers is not None else None
    return await serve(Gateway(rules, upstreams).answer, host, port, admits=admits, stopped=close)
