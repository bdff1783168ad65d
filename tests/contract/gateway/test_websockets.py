"""Websockets through the gateway."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.contract.gateway.processes import TOKEN, Gateway
from tests.contract.gateway.upstream import BLOCK, Upstream

MIB = 2**20


async def _echo(url: str, **options: object) -> tuple[str | None, str, bytes]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, **options) as socket_:  # type: ignore[arg-type]
        await socket_.send_str("hello")
        text = await socket_.receive_str(timeout=10)
        await socket_.send_bytes(BLOCK)
        return socket_.protocol, text, await socket_.receive_bytes(timeout=10)


def test_a_websocket_passes_with_its_subprotocol(gateway: Gateway) -> None:
    """Dagster's UI uses graphql-ws and large messages."""
    protocol, text, data = asyncio.run(_echo(f"{gateway.url}/dagster/graphql", protocols=["graphql-ws"]))
    assert (protocol, text, data) == ("graphql-ws", "- hello", BLOCK)


def test_a_websocket_ends_on_both_sides(gateway: Gateway, upstream: Upstream) -> None:
    """The client gets the upstream's close code; the upstream notices that the client leaves."""

    async def run() -> int | None:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{gateway.url}/dagster/graphql") as socket_:
                await socket_.send_str("close")
                await socket_.receive(timeout=10)
                code = socket_.close_code
            upstream.forget()
            async with session.ws_connect(f"{gateway.url}/dagster/graphql") as socket_:
                await socket_.send_str("hello")
            return code

    assert asyncio.run(run()) == 4001
    assert upstream.cancelled.wait(10)


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_websocket_of_another_site_is_refused(gateway: Gateway, headers: dict[str, str]) -> None:
    """Browsers let any page open one, with the user's cookies."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(_echo(f"{gateway.url}/dagster/graphql", headers=headers))
    assert refused.value.status == 403


def test_a_websocket_needs_the_token(guarded: Gateway) -> None:
    """And the token is not forwarded."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(_echo(f"{guarded.url}/dagster/graphql"))
    assert refused.value.status == 401
    _, text, _ = asyncio.run(_echo(f"{guarded.url}/dagster/graphql", headers={"Authorization": f"Bearer {TOKEN}"}))
    assert text == "- hello"


def test_containers_do_not_accept_websockets(gateway: Gateway) -> None:
    """Only Dagster's route does."""
    with pytest.raises(aiohttp.WSServerHandshakeError):
        asyncio.run(_echo(f"{gateway.url}/containers/tool/ws"))
