"""Forward a websocket message by message, with the subprotocol that the upstream chooses."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import aiohttp
from aiohttp import WSMsgType, web
from aiohttp.client_exceptions import UnixClientConnectorError
from multidict import CIMultiDict

from bonseyes_dagster.errors import BadRequestError, BonseyesError, NotFoundError, UnavailableError
from bonseyes_dagster.gateway.forward import upstream_url
from bonseyes_dagster.gateway.routes import Target

__all__ = ["forward_websocket"]

log = logging.getLogger(__name__)

# Dagster's UI receives whole event logs in one message.
MESSAGE_BYTES = 2**26
HEARTBEAT_S = 30.0

_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def forward_websocket(
    request: web.BaseRequest, target: Target, base_url: str, session: aiohttp.ClientSession, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Connect to the upstream, then copy messages in both directions until one side closes.

    The upstream comes first: if it is down, the client gets a 503 instead of a websocket.
    """
    wanted = [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()]
    if "upgrade" not in request.headers.get("Connection", "").lower():
        raise BadRequestError("The handshake of a websocket needs Connection: Upgrade.")
    kept = CIMultiDict((k, v) for k, v in headers.items() if not k.lower().startswith("sec-websocket-"))
    try:
        upstream = await session.ws_connect(
            upstream_url(base_url, target, request), protocols=wanted, headers=kept, max_msg_size=MESSAGE_BYTES
        )
    except aiohttp.WSServerHandshakeError as error:
        raise _refusal(target, error) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        # The text of a UnixClientConnectorError contains the path of the socket.
        reason = error.strerror if isinstance(error, UnixClientConnectorError) else error
        raise UnavailableError(f"{target.name} did not accept the websocket: {reason}") from error
    async with upstream:
        chosen = [upstream.protocol] if upstream.protocol else []
        client = web.WebSocketResponse(
            protocols=chosen, heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES, compress=False
        )
        await client.prepare(request)
        await _join(client, upstream)
    return client


def _refusal(target: Target, error: aiohttp.WSServerHandshakeError) -> BonseyesError:
    if error.status < 500:
        return NotFoundError(f"{target.name} does not accept this websocket at {target.path}.")
    return UnavailableError(f"{target.name} did not accept the websocket: {error.message}.")


async def _join(client: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse) -> None:
    tasks = [asyncio.create_task(_pump(client, upstream)), asyncio.create_task(_pump(upstream, client))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        code = client.close_code or upstream.close_code or aiohttp.WSCloseCode.GOING_AWAY
        await upstream.close(code=_sendable(code))
        await client.close(code=_sendable(code))


async def _pump(source: _Socket, sink: _Socket) -> None:
    with contextlib.suppress(ConnectionError):
        async for message in source:
            if message.type is WSMsgType.TEXT:
                await sink.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await sink.send_bytes(message.data)


def _sendable(code: int) -> int:
    """Return a close code that a frame may carry: 1005, 1006 and 1015 mean that no close frame came."""
    return int(aiohttp.WSCloseCode.GOING_AWAY) if code in (1005, 1006, 1015) else code
