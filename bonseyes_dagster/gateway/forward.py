"""One request through the gateway: streamed to its upstream and back, never held, never cleanly cut short."""

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

# From the end of the request's body to the beginning of the answer; a long poll takes 60 s.
HEADER_WAIT_S = 300.0
# A client that neither sends nor reads for so long is gone. Silence of the upstream is allowed: it may follow a log.
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
    """Ask the upstream and stream its answer; raise UnavailableError when it does not answer.

    A small body is sent when all of it is there; large ones are streamed, as many at a time as `large_bodies` lets.
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
    async with asyncio.timeout(HEADER_WAIT_S) as patience:
        if not request.body_exists:
            return await session.request(request.method, url, **options)
        body = _body(request, target, patience)
        if request.content_length is not None and request.content_length <= _SMALL_BODY_BYTES:
            # An upstream that has to wait for it would hold a thread meanwhile.
            chunks = [chunk async for chunk in body]
            return await session.request(request.method, url, data=_once(chunks), **options)
        async with large_bodies:
            patience.reschedule(asyncio.get_running_loop().time() + HEADER_WAIT_S)
            return await session.request(request.method, url, data=body, **options)


def upstream_url(base_url: str, target: Target, request: web.BaseRequest) -> URL:
    """Return the URL to ask, its path and query exactly as the client wrote them."""
    query = request.raw_path.partition("?")
    return URL(f"{base_url}{target.path}{query[1]}{query[2]}", encoded=True)


async def _body(request: web.BaseRequest, target: Target, patience: asyncio.Timeout) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    while True:
        patience.reschedule(now() + HEADER_WAIT_S)
        try:
            async with asyncio.timeout(STALL_S):
                chunk = await request.content.readany()
        except TimeoutError as error:
            # The fault is the client's: it is not told that the upstream is down.
            _sever(request, target, error)
            raise
        if not chunk:
            return
        yield chunk


async def _once(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    # A body that can be sent again would be: aiohttp repeats a request whose upstream hangs up.
    for chunk in chunks:
        yield chunk


async def _answer(
    request: web.BaseRequest, target: Target, base_url: str, answer: aiohttp.ClientResponse
) -> web.StreamResponse:
    headers = answer_headers(answer.headers, target, base_url, request.headers.get("Host", ""))
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    closed = _closing(answer)
    async with asyncio.timeout(STALL_S):
        await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        await _copy(answer, response, closed)
    except (*_UPSTREAM_ERRORS, asyncio.IncompleteReadError) as error:
        _sever(request, target, error)
    return response


async def _copy(
    answer: aiohttp.ClientResponse, response: web.StreamResponse, closed: asyncio.Future[None] | None
) -> None:
    async for chunk in answer.content.iter_any():
        async with asyncio.timeout(STALL_S):
            await response.write(chunk)
    if closed is not None:
        await closed


def _closing(answer: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
    """Return what tells how the connection ended, for a body that only its end delimits: a reset is not an end."""
    delimited = "Content-Length" in answer.headers or "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
    if delimited or answer.connection is None or answer.connection.protocol is None or _has_no_body(answer):
        return None
    return answer.connection.protocol.closed


def _has_no_body(answer: aiohttp.ClientResponse) -> bool:
    return answer.method == "HEAD" or answer.status in (204, 304) or answer.status < 200


def _sever(request: web.BaseRequest, target: Target, error: BaseException) -> None:
    log.warning("%s %s broke off: %s", request.method, target.name, str(error) or type(error).__name__)
    if request.transport is None:
        return
    # Lingering for no time makes it a reset: an orderly close could pass for the end of the body.
    connection: socket.socket | None = request.transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def _unavailable(request: web.BaseRequest, target: Target, error: BaseException) -> UnavailableError:
    # Some errors tell the URL, and with it the query, which is not logged.
    reason = error.message if isinstance(error, aiohttp.ClientResponseError) else error
    log.warning("%s %s: %s: %s", request.method, target.name, type(error).__name__, reason)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UnavailableError(f"{target.name} is down; it may be starting. Try again.")
    if isinstance(error, TimeoutError):
        return UnavailableError(f"{target.name} did not answer in time.")
    return UnavailableError(f"{target.name} hung up before it answered.")
