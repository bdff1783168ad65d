"""Where the gateway's targets answer, and the connections to them."""

from __future__ import annotations

import aiohttp

from bonseyes_dagster.client.addresses import Addresses
from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.gateway.routes import DAGSTER, Target

__all__ = ["Upstreams"]

CONNECT_S = 5.0
KEEP_ALIVE_S = 4.0  # below uvicorn's 5 s, so that we close first and no request meets a closing connection
# Reading 1 MiB at once halves the trips through the event loop of a large download.
READ_BYTES = 2**20


class Upstreams:
    """Base URLs by target, and two client sessions: fresh connections, and kept ones where idle ones cost nothing."""

    def __init__(self, addresses: Addresses, dagster_url: str) -> None:
        self._addresses = addresses
        self._dagster_url = dagster_url.rstrip("/")
        self._fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True))
        self._kept = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S))

    async def close(self) -> None:
        """Hang up on everyone."""
        await self._fresh.close()
        await self._kept.close()

    def base_url(self, target: Target) -> str:
        """Return the base URL of a target; raise NotFoundError for a container that the project does not have."""
        if target.container == DAGSTER:
            return self._dagster_url
        if target.container not in self._addresses.containers():
            raise NotFoundError(f"There is no container {target.container!r}.")
        return self._addresses.base_url(target.container)

    def session(self, target: Target, method: str) -> aiohttp.ClientSession:
        """Return the session to ask with: a POST on a kept connection that just closed could not be sent again."""
        return self._kept if target.route.keeps_alive and method in ("GET", "HEAD") else self._fresh


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BYTES,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        trust_env=False,
    )
