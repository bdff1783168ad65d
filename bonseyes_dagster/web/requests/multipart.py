"""Read a multipart/form-data body part by part while it arrives; hold no part in memory.

The library `multipart` parses it. werkzeug's parser copies every byte five times: with it, an upload was slower than
the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from bonseyes_dagster.errors import BadRequestError, TooLargeError

__all__ = ["Part", "read_parts"]

_PARTS_LIMIT = 1000
_BOUNDARY_MAX = 70  # RFC 2046


class Part:
    """One part: its name, its filename or None, and its bytes; the caller can read the bytes once."""

    def __init__(self, name: str, filename: str | None, content: Iterator[bytes]) -> None:
        self.name = name
        self.filename = filename
        self.content = content


def read_parts(read: Callable[[], bytes], boundary: str) -> Iterator[Part]:
    """Yield the parts of a body; `read` returns its next bytes, and b"" at its end.

    The bytes of a part are available until the caller takes the next part. Raises BadRequestError for a malformed
    body, and TooLargeError for more than 1,000 parts.
    """
    if not 1 <= len(boundary) <= _BOUNDARY_MAX or not boundary.isascii():
        raise BadRequestError(f"Content-Type needs a multipart boundary of 1 to {_BOUNDARY_MAX} ASCII characters.")
    events = _events(read, boundary)
    for number, segment in enumerate(events, start=1):
        assert isinstance(segment, MultipartSegment)
        if number > _PARTS_LIMIT:
            raise TooLargeError(
                f"The form may have at most {_PARTS_LIMIT} parts.", detail={"limit_parts": _PARTS_LIMIT}
            )
        if segment.disposition != "form-data" or not segment.name:
            raise BadRequestError('Each part of the body needs `Content-Disposition: form-data; name="..."`.')
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
        raise BadRequestError(f"The multipart body is malformed: {error}.") from error
