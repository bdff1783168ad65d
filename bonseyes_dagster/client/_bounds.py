"""Limits on the size and the time of an answer: a server may be broken, or may not be a container at all."""

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
    """Raise UnexpectedAnswerError for a compressed answer: a small one can fill the memory."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnexpectedAnswerError(
            f"{sockets.plain_url(response.url)} answered with Content-Encoding {encoding[:40]}; we asked for none."
        )


def read_whole(response: requests.Response, *, limit_bytes: int, deadline_s: float) -> None:
    """Read the body into `response.content`.

    Raises UnexpectedAnswerError when the body is larger than `limit_bytes`. Raises ConnectionFailedError when it is
    not complete at `deadline_s` of the monotonic clock; a body that arrives slowly does not extend the deadline.
    """
    body = bytearray()
    for piece in _pieces(response):
        body += piece
        if len(body) > limit_bytes:
            response.close()
            raise UnexpectedAnswerError(
                f"{sockets.plain_url(response.url)} answered with more than {limit_bytes} bytes."
            )
        if time.monotonic() > deadline_s:
            response.close()
            raise ConnectionFailedError(f"{sockets.plain_url(response.url)} did not finish its answer in time.")
    # requests keeps a body that it has read in these two attributes.
    response._content = bytes(body)
    response._content_consumed = True  # type: ignore[attr-defined]


def _pieces(response: requests.Response) -> Iterator[bytes]:
    if not isinstance(response.raw, urllib3.BaseHTTPResponse):  # the caller gave its own session, as tests do
        yield from response.iter_content(_CHUNK_BYTES)
        return
    # `read1` returns the bytes that have arrived, so that the caller can check the clock.
    while piece := response.raw.read1(_CHUNK_BYTES, decode_content=False):
        yield piece
