"""How much of an answer is taken, and how long it may take: a server may be broken, or not be a container at all."""

from __future__ import annotations

import time
from collections.abc import Iterator

import requests
import urllib3

from bonseyes_dagster.errors import ConnectionFailedError, UnexpectedAnswerError
from bonseyes_dagster.system import sockets

__all__ = ["ANSWER_LIMIT_BYTES", "DESCRIPTION_LIMIT_BYTES", "check_encoding", "read_whole"]

ANSWER_LIMIT_BYTES = 1 << 28
"""A list of a million artifacts or files fits into this."""
DESCRIPTION_LIMIT_BYTES = 1 << 22
_CHUNK_BYTES = 1 << 18


def check_encoding(response: requests.Response) -> None:
    """Raise UnexpectedAnswerError for a compressed answer: we ask for none, and a small one may fill the memory."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnexpectedAnswerError(
            f"{sockets.plain_url(response.url)} answered with Content-Encoding {encoding[:40]}; we asked for none"
        )


def read_whole(response: requests.Response, *, limit_bytes: int, until: float) -> None:
    """Read the body into `response.content`.

    Raises UnexpectedAnswerError when it is larger than `limit_bytes`, ConnectionFailedError when it is not there at
    the moment `until` of the monotonic clock; what comes slowly resets no clock.
    """
    body = bytearray()
    for piece in _pieces(response):
        body += piece
        if len(body) > limit_bytes:
            response.close()
            raise UnexpectedAnswerError(
                f"{sockets.plain_url(response.url)} answered with more than {limit_bytes} bytes"
            )
        if time.monotonic() > until:
            response.close()
            raise ConnectionFailedError(f"{sockets.plain_url(response.url)} did not finish its answer in time")
    response._content = bytes(body)
    response._content_consumed = True  # type: ignore[attr-defined]  # where requests keeps a body that it has read


def _pieces(response: requests.Response) -> Iterator[bytes]:
    if not isinstance(response.raw, urllib3.BaseHTTPResponse):  # a session of somebody else, such as a test's
        yield from response.iter_content(_CHUNK_BYTES)
        return
    # `read1` hands on what has come, so that the clock is looked at.
    while piece := response.raw.read1(_CHUNK_BYTES, decode_content=False):
        yield piece
