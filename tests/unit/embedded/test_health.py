"""How a service's health is told."""

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
    """Run a check against a server that answers with `answer`; return what it was asked."""
    asked = b""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await reader.read(1000)
        writer.write(answer)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            await make(server.sockets[0].getsockname()[1])()

    asyncio.run(run())
    return asked


def test_a_200_is_healthy() -> None:
    """Asked with the path and the headers that were given."""
    asked = _check(b"HTTP/1.0 200 OK\r\n\r\n", lambda port: health.answers(("127.0.0.1", port), "/healthz", {"X": "1"}))
    assert asked.startswith(b"GET /healthz HTTP/1.0\r\n")
    assert b"\r\nX: 1\r\n" in asked


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
def test_anything_else_is_not_and_says_why(answer: bytes, reason: str) -> None:
    """A container's own sentence is passed on."""
    with pytest.raises(NotHealthyError, match=reason):
        _check(answer, lambda port: health.answers(("127.0.0.1", port), "/healthz"))


def test_nobody_there_is_not_healthy(tmp_path: Path) -> None:
    """Neither at a port nor at a socket."""
    for check in (
        health.answers(("127.0.0.1", 1), "/"),
        health.answers(tmp_path / "socket", "/"),
        health.listens(tmp_path / "socket"),
        health.pings(tmp_path / "none" / "socket"),
        health.pings(tmp_path / "socket"),
    ):
        with pytest.raises(NotHealthyError, match="does not listen"):
            asyncio.run(check())


def test_a_run_server_is_healthy_with_its_definitions(tmp_path: Path) -> None:
    """One that could not load them says so, although it answers."""

    async def ask(answer: dict[str, object]) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert json.loads(await reader.readline())["command"] == "ping"
            writer.write(json.dumps(answer).encode() + b"\n")
            writer.close()

        server = await asyncio.start_unix_server(handle, tmp_path / "socket")
        async with server:
            await health.pings(tmp_path / "socket")()

    asyncio.run(ask({"ok": True, "load_error": None}))
    with pytest.raises(NotHealthyError, match="NameError: x"):
        asyncio.run(ask({"ok": True, "load_error": "Traceback\n  ...\nNameError: x\n"}))


@pytest.mark.parametrize("name", ["plain", "a#b", "a?b", "a%41b"])
def test_the_daemon_is_healthy_when_it_beats(tmp_path: Path, name: str) -> None:
    """Since it was started: an older heartbeat was another daemon's."""
    database = tmp_path / name / "runs.db"
    database.parent.mkdir()
    check = health.beats(database, time.time())
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
