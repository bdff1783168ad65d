"""Sends requests to a WSGI application in this process, in the form that uWSGI gives them.

The requests may be ones that no client library sends.
"""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

__all__ = ["Answer", "check_answer", "send_request"]

_HEADER_VALUE = re.compile(r"[\t -~\x80-\xff]*")


@dataclass(frozen=True)
class Answer:
    """The response of the application."""

    status: int
    headers: dict[str, str]
    body: bytes


def send_request(app: Any, method: str, target: str, headers: list[tuple[str, str]] = (), body: bytes = b"") -> Answer:  # type: ignore[assignment]
    """Send one request. `target` is sent without quoting; text that is not ASCII is sent as UTF-8."""
    path, _, query = _raw(target).partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": _raw(target),
        "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": query,
        "SCRIPT_NAME": "",
        "HTTP_HOST": "localhost",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)) if body else "",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = _raw(value)
    return _run(app, environ)


def _raw(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("latin-1") if not text.isascii() else text


def _run(app: Any, environ: dict[str, Any]) -> Answer:
    begun: list[Any] = []
    pieces = app(environ, lambda status, headers, error=None: begun.append((status, headers)))
    try:
        body = b"".join(pieces)
    finally:
        getattr(pieces, "close", lambda: None)()
    [(status, headers)] = begun
    for name, value in headers:
        assert _HEADER_VALUE.fullmatch(value), (name, value)
    return Answer(int(status.split()[0]), {name.lower(): value for name, value in headers}, body)


def check_answer(answer: Answer) -> None:
    """Check the rules for every answer: no status of 500 or more, errors as JSON, and a safe Location."""
    assert answer.status < 500, answer
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status >= 400 and answer.body:
        error = json.loads(answer.body)["error"]
        assert error["message"], error
        assert error["code"]
    location = answer.headers.get("location")
    assert location is None or re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+(/[^/].*)?|/[^/].*", location), location
