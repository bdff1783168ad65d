"""A multipart/form-data body, part by part while it arrives: no part is held in memory.

`multipart` does the parsing: werkzeug's own parser copies every byte five times, which made it, not the disk, the limit
of an upload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from bonseyes_dagster.errors import BadRequestError, TooLargeError

__all__ = ["Part", "read_parts"]

_PARTS_LIMIT = 1000
_BOUNDARY_MAX = 70  # RFC 2046


class Part:
    """One part: its name, the filename if it has one, and its bytes, which can be read once."""

    def __init__(self, name: str, filename: str | None, content: Iterator[bytes]) -> None:
        self.name = name
        self.filename = filename
        self.content = content


def read_parts(read: Callable[[], bytes], boundary: str) -> Iterator[Part]:
    """Yield the parts of the body that `read` gives piece by piece (b"" at its end).

    A part is over when the next one is asked for. Raises BadRequestError if the body is malformed, TooLargeError if it
    has more than 1,000 parts.
    """
    if not 1 <= len(boundary) <= _BOUNDARY_MAX or not boundary.isascii():
        raise BadRequestError(f"Content-Type needs a multipart boundary of 1 to {_BOUNDARY_MAX} ASCII characters")
    events = _events(read, boundary)
    for number, segment in enumerate(events, start=1):
        assert isinstance(segment, MultipartSegment)
        if number > _PARTS_LIMIT:
            raise TooLargeError(f"a form may have {_PARTS_LIMIT} parts", detail={"limit_parts": _PARTS_LIMIT})
        if segment.disposition != "form-data" or not segment.name:
            raise BadRequestError('malformed multipart body: a part lacks `Content-Disposition: form-data; name="..."`')
        content = _content(events)
        yield Part(segment.name, segment.filename, content)
        for _ in content:
            pass


def _content(events: Iterator[MultipartSegment | bytes | None]) -> Iterator[bytes]:
    """Yield a part's bytes up to the None that ends it."""
    for event in iter(events.__next__, None):
        assert isinstance(event, bytes)
        yield event


def _events(read: Callable[[], bytes], boundary: str) -> Iterator[MultipartSegment | bytes | None]:
    parser = PushMultipartParser(boundary)
    try:
        while data := read():
            yield from parser.parse(data)
        parser.close()
    except MultipartError as error:
        raise BadRequestError(f"malformed multipart body: {error}") from error
