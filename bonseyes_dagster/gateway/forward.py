"""Forward one request: stream it to its upstream, and stream the answer back.

The gateway holds neither body in memory. When an upstream breaks off, the gateway resets the client's connection: the
client never takes a part of a body for the whole.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from bonseyes_dagster.errors import UnavailableError
from bonseyes_dagster.gateway.headers import answer_headers
from bonseyes_dagster.gateway.routes import Target

__all__ = ["HEADER_WAIT_S", "STALL_S", "forward"]

log = logging.getLogger(__name__)

# The timeout from the end of the request's body to the beginning of the answer; a long poll takes 60 s.
HEADER_WAIT_S = 300.0
# A client that neither sends nor reads for so long is gone. An upstream may be silent for longer: it may follow a log.
STALL_S = 60.0

_SMALL_BODY_BYTES = 2**18

_UPSTREAM_ERRORS = (aiohttp.ClientError, ConnectionError, TimeoutError)


async def forward(
    request: web.BaseRequest,
    target: Target,
    base_url: str,
    session: aiohttp.ClientSession,
    headers: CIMultiDict[str],
    large_bodies: asyncio.Semaphore,
) -> web.StreamResponse:
    """Send the request to the upstream and stream its answer; raise UnavailableError when it does not answer.

    The gateway reads a small body completely before it sends it. It streams a large body; `large_bodies` limits how
    many at a time.
    """
    url = upstream_url(base_url, target, request)
    try:
        answer = await _ask(request, target, url, session, headers, large_bodies)
    except _UPSTREAM_ERRORS as error:
        raise _unavailable(request, target, error) from error
    try:
        return await _answer(request, target, base_url, answer)
    finally:
        answer.close()


async def _ask(
    request: web.BaseRequest,
    target: Target,
    url: URL,
    session: aiohttp.ClientSession,
    headers: CIMultiDict[str],
    large_bodies: asyncio.Semaphore,
) -> aiohttp.ClientResponse:
    options: dict[str, Any] = {"headers": headers, "allow_redirects": False}
    async with asyncio.timeout(HEADER_WAIT_S) as deadline:
        if not request.body_exists:
            return await session.request(request.method, url, **options)
        body = _body(request, target, deadline)
        if request.content_length is not None and request.content_length <= _SMALL_BODY_BYTES:
            # Read all of it first: while an upstream waits for a body, it holds a thread.
            chunks = [chunk async for chunk in body]
            return await session.request(request.method, url, data=_unrepeatable(chunks), **options)
        async with large_bodies:
            deadline.reschedule(asyncio.get_running_loop().time() + HEADER_WAIT_S)
            return await session.request(request.method, url, data=body, **options)


def upstream_url(base_url: str, target: Target, request: web.BaseRequest) -> URL:
    """Return the upstream's URL; its path and query are exactly as the client wrote them."""
    query = request.raw_path.partition("?")
    return URL(f"{base_url}{target.path}{query[1]}{query[2]}", encoded=True)


async def _body(request: web.BaseRequest, target: Target, deadline: asyncio.Timeout) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    while True:
        deadline.reschedule(now() + HEADER_WAIT_S)
        try:
            async with asyncio.timeout(STALL_S):
                chunk = await request.content.readany()
        except TimeoutError as error:
            # The client stalled, not the upstream: a 503 would be wrong.
            _reset_client(request, target, error)
            raise
        if not chunk:
            return
        yield chunk


async def _unrepeatable(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    # A generator, because aiohttp cannot send it twice. It would repeat a request whose upstream closes the connection.
    for chunk in chunks:
        yield chunk


async def _answer(
    request: web.BaseRequest, target: Target, base_url: str, answer: aiohttp.ClientResponse
) -> web.StreamResponse:
    headers = answer_headers(answer.headers, target, base_url, request.headers.get("Host", ""))
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    closed = _end_of_connection(answer)
    async with asyncio.timeout(STALL_S):
        await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        await _copy(answer, response, closed)
    except (*_UPSTREAM_ERRORS, asyncio.IncompleteReadError) as error:
        _reset_client(request, target, error)
    return response


async def _copy(
    answer: aiohttp.ClientResponse, response: web.StreamResponse, closed: asyncio.Future[None] | None
) -> None:
    async for chunk in answer.content.iter_any():
        async with asyncio.timeout(STALL_S):
            await response.write(chunk)
    if closed is not None:
        await closed


def _end_of_connection(answer: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """Return a future that fails if the upstream resets the connection; None if the headers give the body's end."""
    delimited = "Content-Length" in answer.headers or "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
    if delimited or answer.connection is None or answer.connection.protocol is None or _has_no_body(answer):
        return None
    return answer.connection.protocol.closed


def _has_no_body(answer: aiohttp.ClientResponse) -> bool:
    return answer.method == "HEAD" or answer.status in (204, 304) or answer.status < 200


def _reset_client(request: web.BaseRequest, target: Target, error: BaseException) -> None:
    log.warning("%s %s broke off: %s", request.method, target.name, str(error) or type(error).__name__)
    if request.transport is None:
        return
    # A linger time of 0 resets the connection: the client could take an orderly close for the end of the body.
    connection: socket.socket | None = request.transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def _unavailable(request: web.BaseRequest, target: Target, error: BaseException) -> UnavailableError:
    # Some errors contain the URL with its query, and queries must not be logged.
    reason = error.message if isinstance(error, aiohttp.ClientResponseError) else error
    log.warning("%s %s: %s: %s", request.method, target.name, type(error).__name__, reason)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UnavailableError(f"{target.name} is down or starting; try again.")
    if isinstance(error, TimeoutError):
        return UnavailableError(f"{target.name} did not answer in time; try again.")
    return UnavailableError(f"{target.name} closed the connection before it answered; try again.")
