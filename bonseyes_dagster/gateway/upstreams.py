"""The addresses of the gateway's targets, and the connections to them."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError

from bonseyes_dagster.client.addresses import Addresses
from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.gateway.routes import DAGSTER, Target
from bonseyes_dagster.system import sockets

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

__all__ = ["Upstreams"]

CONNECT_S = 5.0
KEEP_ALIVE_S = 4.0  # below uvicorn's 5 s: the gateway closes first, so no request meets a closing connection
# Reads of 1 MiB halve the iterations of the event loop in a large download.
READ_BYTES = 2**20
_FULL_PAUSE_S = 0.02
# Less than half of a container's threads.
LARGE_BODIES = 24


class Upstreams:
    """Base URLs and client sessions by target.

    All upstreams with a TCP port share two sessions; each unix socket has two sessions. One session keeps its
    connections alive, the other opens a new connection for each request.
    """

    def __init__(self, addresses: Addresses, dagster_url: str) -> None:
        self._addresses = addresses
        self._dagster_url = dagster_url.rstrip("/")
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}
        self._large_bodies: dict[str, asyncio.Semaphore] = {}

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    def base_url(self, target: Target) -> str:
        """Return the base URL of a target, `http://NAME` for a socket.

        Raises NotFoundError for a container that the project does not have.
        """
        return sockets.plain_url(self._address(target))

    def session(self, target: Target, method: str) -> aiohttp.ClientSession:
        """Return the session for a request; a POST gets a new connection, because it must not be repeated.

        A kept connection may close just when the gateway sends a request on it.
        """
        key = (sockets.path_of(self._address(target)), target.route.keeps_alive and method in ("GET", "HEAD"))
        if key not in self._sessions:
            self._sessions[key] = _session(_connector(*key))
        return self._sessions[key]

    def large_bodies(self, target: Target) -> asyncio.Semaphore:
        """Return the limit of simultaneous uploads to a target; each upload holds one of its threads."""
        return self._large_bodies.setdefault(target.name, asyncio.Semaphore(LARGE_BODIES))

    def _address(self, target: Target) -> str:
        if target.container == DAGSTER:
            return self._dagster_url
        if target.container not in self._addresses.containers():
            raise NotFoundError(f"There is no container {target.container!r}.")
        return self._addresses.base_url(target.container)


class _SocketConnector(aiohttp.UnixConnector):
    """Waits while the server's backlog is full, as TCP does; asyncio would treat such a socket as connected."""

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        try:
            async with asyncio.timeout(timeout.sock_connect):
                connected = await _connect(self.path)
        except TimeoutError:
            raise
        except OSError as error:
            raise UnixClientConnectorError(self.path, req.connection_key, error) from error
        _, protocol = await self._loop.create_unix_connection(self._factory, sock=connected)
        return protocol


async def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        while True:
            try:
                connection.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_FULL_PAUSE_S)
            else:
                return connection
    except BaseException:
        connection.close()
        raise


def _connector(path: str | None, is_kept: bool) -> aiohttp.BaseConnector:
    # aiohttp refuses a keep-alive time beside `force_close`.
    options: dict[str, Any] = {"keepalive_timeout": KEEP_ALIVE_S} if is_kept else {"force_close": True}
    return aiohttp.TCPConnector(limit=0, **options) if path is None else _SocketConnector(path, limit=0, **options)


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BYTES,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        trust_env=False,
    )
