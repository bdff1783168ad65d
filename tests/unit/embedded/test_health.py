"""The health checks of the supervisor."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bonseyes_dagster.embedded import health
from bonseyes_dagster.embedded.health import NotHealthyError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _check(answer: bytes, make: Callable[[int], health.Check]) -> bytes:
    """Run a check against a server that answers with `answer`; return the request."""
    request = b""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal request
        request = await reader.read(1000)
        writer.write(answer)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            await make(server.sockets[0].getsockname()[1])()

    asyncio.run(run())
    return request


def test_http_check_succeeds_with_a_200() -> None:
    """The request has the given path and headers."""
    request = _check(
        b"HTTP/1.0 200 OK\r\n\r\n", lambda port: health.http_check(("127.0.0.1", port), "/healthz", {"X": "1"})
    )
    assert request.startswith(b"GET /healthz HTTP/1.0\r\n")
    assert b"\r\nX: 1\r\n" in request


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b'HTTP/1.1 503 Busy\r\nX: 1\r\n\r\n{"error": {"code": "unavailable", "message": "no worker"}}',
            "no worker",
        ),
        (b"HTTP/1.1 500 Oh\r\n\r\n<html>", "answers HTTP/1.1 500 Oh"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n[]", "answers HTTP/1.1 404 Not Found"),
        (b"", "answers nothing"),
        (b"\xff\xff", "answers"),
    ],
)
def test_http_check_fails_with_the_reason_in_the_answer(answer: bytes, reason: str) -> None:
    """The reason is the container's own message, if it sends one."""
    with pytest.raises(NotHealthyError, match=reason):
        _check(answer, lambda port: health.http_check(("127.0.0.1", port), "/healthz"))


def test_checks_fail_when_nobody_listens(tmp_path: Path) -> None:
    """This holds for ports and for unix sockets."""
    for check in (
        health.http_check(("127.0.0.1", 1), "/"),
        health.http_check(tmp_path / "socket", "/"),
        health.connection_check(tmp_path / "socket"),
        health.run_server_check(tmp_path / "none" / "socket"),
        health.run_server_check(tmp_path / "socket"),
    ):
        with pytest.raises(NotHealthyError, match="does not listen"):
            asyncio.run(check())


def test_run_server_without_its_definitions_is_not_healthy(tmp_path: Path) -> None:
    """It answers a ping, but reports the error of its definitions."""

    async def ask(answer: dict[str, object]) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert json.loads(await reader.readline())["command"] == "ping"
            writer.write(json.dumps(answer).encode() + b"\n")
            writer.close()

        server = await asyncio.start_unix_server(handle, tmp_path / "socket")
        async with server:
            await health.run_server_check(tmp_path / "socket")()

    asyncio.run(ask({"ok": True, "load_error": None}))
    with pytest.raises(NotHealthyError, match="NameError: x"):
        asyncio.run(ask({"ok": True, "load_error": "Traceback\n  ...\nNameError: x\n"}))


@pytest.mark.parametrize("name", ["plain", "a#b", "a?b", "a%41b"])
def test_daemon_is_healthy_after_its_own_heartbeat(tmp_path: Path, name: str) -> None:
    """A heartbeat before its start came from an earlier daemon."""
    database = tmp_path / name / "runs.db"
    database.parent.mkdir()
    check = health.heartbeat_check(database, time.time())
    with pytest.raises(NotHealthyError, match="no heartbeat"):
        asyncio.run(check())
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE daemon_heartbeats (timestamp TIMESTAMP)")
    connection.execute("INSERT INTO daemon_heartbeats VALUES ('2001-01-01 00:00:00.5')")
    connection.commit()
    with pytest.raises(NotHealthyError, match="no heartbeat"):
        asyncio.run(check())
    connection.execute("INSERT INTO daemon_heartbeats VALUES (datetime('now', '+10 seconds'))")
    connection.commit()
    connection.close()
    asyncio.run(check())
