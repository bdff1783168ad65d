"""Dagster's webserver at a port refuses pages of other sites, and pages whose host name resolves to the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from bonseyes_dagster.execution.servers.webserver import RefusePages


async def _dagster(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("executed")(scope, receive, send)


def _ask(kind: str = "http", **headers: str) -> list[MutableMapping[str, Any]]:
    """Return the messages that a server with the name `dagster` sends."""
    named = {"Host": "dagster:3000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": kind, "method": "POST", "path": "/graphql", "query_string": b""}
    scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.request"}

    asyncio.run(RefusePages(_dagster, {"dagster"})(scope, receive, send))
    return sent


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "dagster.evil.example", ""])
def test_page_with_another_host_name_gets_403(host: str) -> None:
    """For the browser it has the same origin, so it can set the headers of the gateway."""
    forged = {"Host": host, "X_Forwarded_Host": "127.0.0.1:8000", "X_Forwarded_For": "127.0.0.1", "Origin": "http://x"}
    start, body = _ask(**forged)
    assert (start["status"], json.loads(body["body"])["error"]["code"]) == (403, "forbidden")
    assert [message["type"] for message in _ask("websocket", **forged)] == ["websocket.close"]


@pytest.mark.parametrize("header", [{"Sec_Fetch_Site": "cross-site"}, {"Origin": "http://evil.example"}])
def test_page_of_another_site_gets_403(header: dict[str, str]) -> None:
    """It cannot set the header of the gateway."""
    assert _ask(**header)[0]["status"] == 403


@pytest.mark.parametrize("headers", [{}, {"Host": "127.0.0.1:3000"}, {"Origin": "http://gw", "X_Forwarded_Host": "gw"}])
def test_the_gateway_and_programs_are_answered(headers: dict[str, str]) -> None:
    """Host may be the server's name or its address."""
    assert _ask(**headers)[1]["body"] == b"executed"
    assert _ask("websocket", **headers)[0]["type"] == "websocket.accept"
