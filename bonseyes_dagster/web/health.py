"""`python -m bonseyes_dagster.web.health [ADDRESS]` is the health check of containers, without curl.

ADDRESS is `http://HOST:PORT/PATH`, which must answer 200, or `tcp://HOST:PORT` or `unix:///PATH`, which must accept a
connection. The default is `http://127.0.0.1:80/healthz`. Docker runs it every few seconds in every container, so it
imports little.
"""

from __future__ import annotations

import json
import socket
import sys

__all__ = ["check"]

DEFAULT = "http://127.0.0.1:80/healthz"
TIMEOUT_S = 8.0
_ANSWER_BYTES = 65536


def check(address: str) -> str | None:
    """Return a sentence about the failure at `address`, or None for a healthy server."""
    scheme, _, rest = address.partition("://")
    try:
        if scheme == "http":
            return _answers(rest)
        if scheme not in ("tcp", "unix"):
            return f"{address!r} must begin with http://, tcp:// or unix://"
        _connected(scheme, rest).close()
    except (OSError, ValueError) as error:
        return f"{address}: {error}"
    return None


def _answers(rest: str) -> str | None:
    host, _, path = rest.partition("/")
    request = f"GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()
    with _connected("tcp", host if ":" in host.rpartition("]")[2] else f"{host}:80") as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            head, _, body = answer.read(_ANSWER_BYTES).partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    return None if words[1:2] == [b"200"] else _reason(head, body)


def _connected(scheme: str, rest: str) -> socket.socket:
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT_S)
    try:
        connection.connect(rest)
    except OSError:
        connection.close()
        raise
    return connection


def _reason(head: bytes, body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return head.split(b"\r\n", 1)[0].decode(errors="replace") or "it closed the connection"


def main() -> int:
    """Print the failure and return the exit status: Docker expects 1 for an unhealthy container."""
    wrong = check(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
    if wrong is not None:
        sys.stdout.write(f"{wrong}\n")
    return 0 if wrong is None else 1


if __name__ == "__main__":
    sys.exit(main())
