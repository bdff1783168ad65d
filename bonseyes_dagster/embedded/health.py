"""Health checks of the services for the supervisor; a failed check raises NotHealthyError with the reason."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from bonseyes_dagster.execution.launching.run_protocol import PROTOCOL_VERSION, socket_address

__all__ = [
    "BrokenError",
    "Check",
    "NotHealthyError",
    "connection_check",
    "heartbeat_check",
    "http_check",
    "run_server_check",
]

TIMEOUT_S = 10.0
_ANSWER_BYTES = 65536

Check = Callable[[], Awaitable[None]]
Place = Path | tuple[str, int]
"""A unix socket, or a host and a port."""


class NotHealthyError(Exception):
    """The service is not ready; the text has the reason."""


class BrokenError(NotHealthyError):
    """The service cannot get ready before somebody corrects its code."""


def http_check(place: Place, path: str, headers: dict[str, str] | None = None) -> Check:
    """Return a check that a GET gets a 200; the reason comes from the error answer, if it has one."""
    lines = [f"{key}: {value}" for key, value in {"Host": _host_of(place), **(headers or {})}.items()]
    request = "\r\n".join((f"GET {path} HTTP/1.0", *lines, "", "")).encode()

    async def check() -> None:
        answer = await _ask(place, request)
        status_line, _, rest = answer.partition(b"\r\n")
        words = status_line.split()
        if len(words) < 2 or words[1] != b"200":
            raise _not_healthy(status_line, rest)

    return check


def connection_check(place: Place) -> Check:
    """Return a check that the service accepts a connection."""

    async def check() -> None:
        await _ask(place, None)

    return check


def run_server_check(file: Path) -> Check:
    """Return a check that the run server at a unix socket answers, and has loaded the definitions."""

    async def check() -> None:
        request = json.dumps({"version": PROTOCOL_VERSION, "command": "ping"}).encode() + b"\n"
        try:
            with socket_address(file) as address:
                async with asyncio.timeout(TIMEOUT_S):
                    reader, writer = await asyncio.open_unix_connection(address)
                    try:
                        writer.write(request)
                        answer = json.loads(await reader.readline())
                    finally:
                        writer.close()
        except TimeoutError as error:
            raise NotHealthyError("loads the definitions") from error
        except (OSError, ValueError) as error:
            raise NotHealthyError("does not listen") from error
        if answer.get("load_error"):
            raise NotHealthyError(f"the definitions cannot be loaded: {answer['load_error'].strip().splitlines()[-1]}")

    return check


def heartbeat_check(database: Path, since_s: float) -> Check:
    """Return a check that Dagster's daemon has stored a heartbeat since `since_s`."""

    async def check() -> None:
        last = _last_heartbeat(database)
        if last is not None and last < since_s:
            raise NotHealthyError("no heartbeat yet")

    return check


def _last_heartbeat(database: Path) -> float | None:
    """Return the time of the last heartbeat, 0 without one, None if the storage is of another kind."""
    if not database.exists():
        return 0.0
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
        ) as connection:
            row = connection.execute("SELECT max(timestamp) FROM daemon_heartbeats").fetchone()
    except sqlite3.Error:
        return 0.0
    if not row or row[0] is None:
        return 0.0
    return _seconds(str(row[0]))


def _seconds(text: str) -> float:
    # SQLAlchemy writes UTC without a time zone.
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _host_of(place: Place) -> str:
    if isinstance(place, Path):
        return "localhost"
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _connect(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(place, Path):
        return await asyncio.open_unix_connection(place)
    return await asyncio.open_connection(*place)


async def _ask(place: Place, request: bytes | None) -> bytes:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await _connect(place)
            try:
                if request is None:
                    return b""
                writer.write(request)
                return await reader.read(_ANSWER_BYTES)
            finally:
                writer.close()
    except TimeoutError as error:
        raise NotHealthyError(f"no answer within {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise NotHealthyError("does not listen") from error


def _not_healthy(status_line: bytes, rest: bytes) -> NotHealthyError:
    body = rest.partition(b"\r\n\r\n")[2]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(body)["error"]
        is_broken = isinstance(error.get("detail"), dict) and error["detail"].get("state") == "broken"
        return (BrokenError if is_broken else NotHealthyError)(str(error["message"]))
    return NotHealthyError(f"answers {status_line.decode(errors='replace') or 'nothing'}")
