"""Takes a multipart/form-data body apart while it arrives: one copy and one search for each byte, no part in memory.

Werkzeug's own decoder copies every byte five times, which made it, not the disk, the limit of an upload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from werkzeug.http import parse_options_header

from bonseyes_dagster.errors import BadRequestError, TooLargeError

__all__ = ["Part", "read_parts"]

_HEADERS_LIMIT_BYTES = 1 << 14
_PARTS_LIMIT = 1000
_BOUNDARY_MAX = 70  # RFC 2046
_END_OF_HEADERS = b"\r\n\r\n"


class Part:
    """One part: its name, the filename if it has one, and its bytes, which can be read once."""

    def __init__(self, name: str, filename: str | None, content: Iterator[memoryview]) -> None:
        self.name = name
        self.filename = filename
        self.content = content


def read_parts(read: Callable[[], bytes], boundary: str) -> Iterator[Part]:
    """Yield the parts of the body that `read` gives piece by piece (b"" at its end).

    A part is over when the next one is asked for. Raises BadRequestError if the body is malformed.
    """
    if not 1 <= len(boundary) <= _BOUNDARY_MAX or not boundary.isascii():
        raise BadRequestError(f"Content-Type needs a multipart boundary of 1 to {_BOUNDARY_MAX} ASCII characters")
    scanner = _Scanner(read, b"\r\n--" + boundary.encode())
    for _ in scanner.until_delimiter():
        pass  # the preamble
    for _ in range(_PARTS_LIMIT):
        if scanner.is_last():
            return
        name, filename = _disposition(scanner.headers())
        part = Part(name, filename, scanner.until_delimiter())
        yield part
        for _ in part.content:
            pass
    if not scanner.is_last():
        raise TooLargeError(f"a form may have {_PARTS_LIMIT} parts", detail={"limit_parts": _PARTS_LIMIT})


class _Scanner:
    """The bytes that have come and are not yet taken, and the delimiter between parts."""

    def __init__(self, read: Callable[[], bytes], delimiter: bytes) -> None:
        self._read = read
        self._delimiter = delimiter
        # the first delimiter needs no line break before it, so one is put there
        self._buffer = b"\r\n"

    def _fill(self) -> None:
        data = self._read()
        if not data:
            raise BadRequestError("malformed multipart body: it ends before its last boundary")
        self._buffer = self._buffer + data if self._buffer else data

    def until_delimiter(self) -> Iterator[memoryview]:
        """Yield the bytes before the next delimiter, and take that away, too."""
        keep = len(self._delimiter) - 1
        while (found := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > keep:
                data, self._buffer = memoryview(self._buffer)[:-keep], self._buffer[-keep:]
                yield data
            self._fill()
        data = memoryview(self._buffer)[:found]
        self._buffer = self._buffer[found + len(self._delimiter) :]
        if data:
            yield data

    def is_last(self) -> bool:
        """Take the rest of a delimiter's line; tell whether it was the closing one."""
        while len(self._buffer) < 2:
            self._fill()
        if self._buffer.startswith(b"--"):
            while self._read():
                pass  # the epilogue
            return True
        line = self._take(b"\r\n")
        if line.strip(b" \t"):
            raise BadRequestError("malformed multipart body: a boundary is followed by other text")
        return False

    def headers(self) -> list[str]:
        """Take a part's headers; return their lines."""
        # a part without any header has the blank line at once
        self._buffer = b"\r\n" + self._buffer
        text = self._take(_END_OF_HEADERS)
        try:
            return text.decode().split("\r\n")
        except UnicodeDecodeError as error:
            raise BadRequestError("malformed multipart body: the headers of a part are not UTF-8") from error

    def _take(self, end: bytes) -> bytes:
        while (found := self._buffer.find(end)) < 0:
            if len(self._buffer) > _HEADERS_LIMIT_BYTES:
                raise BadRequestError(f"the headers of a part have more than {_HEADERS_LIMIT_BYTES} bytes")
            self._fill()
        text, self._buffer = self._buffer[:found], self._buffer[found + len(end) :]
        return text


def _disposition(lines: list[str]) -> tuple[str, str | None]:
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            kind, options = parse_options_header(value.strip())
            if kind != "form-data" or "name" not in options:
                break
            return options["name"], options.get("filename")
    raise BadRequestError('malformed multipart body: a part has no `Content-Disposition: form-data; name="..."`')
