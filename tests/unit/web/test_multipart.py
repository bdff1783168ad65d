"""Multipart bodies give the same parts, however their bytes are split into pieces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonseyes_dagster.errors import BadRequestError, TooLargeError
from bonseyes_dagster.web.requests.multipart import read_parts

# The bytes of boundaries, so that the data often looks like a boundary.
_TRICKY = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"b", b"\r\n--", b"\r\n--B", b"x", b"\0"])).map(b"".join)


def reader(data: bytes, sizes: list[int]) -> Callable[[], bytes]:
    """Return a `read` that returns `data` in pieces of `sizes`, over and over."""
    pieces = []
    position = 0
    while position < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[position : position + size])
        position += size
    return lambda: pieces.pop(0) if pieces else b""


def body(contents: list[bytes], boundary: bytes = b"bb") -> bytes:
    """Return a form with one part for each content."""
    parts = [
        b"--"
        + boundary
        + b'\r\nContent-Disposition: form-data; name="p%d"; filename="f"\r\n\r\n%s\r\n' % (number, content)
        for number, content in enumerate(contents)
    ]
    return b"".join(parts) + b"--" + boundary + b"--\r\n"


@given(st.lists(_TRICKY, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_parts_come_back_unchanged(contents: list[bytes], sizes: list[int]) -> None:
    """Names, order and bytes are right, wherever the pieces are split."""
    contents = [content.replace(b"\r\n--bb", b"") for content in contents]
    if any(b"\r\n--bb" in b"\r\n" + content for content in contents):
        return
    found = [(part.name, b"".join(part.content)) for part in read_parts(reader(body(contents), sizes), "bb")]
    assert found == [(f"p{number}", content) for number, content in enumerate(contents)]


def test_unread_parts_are_skipped() -> None:
    """Taking the next part skips the rest of this one."""
    data = body([b"x" * 1000, b"y"])
    assert [part.name for part in read_parts(reader(data, [7]), "bb")] == ["p0", "p1"]


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_any_bytes_are_a_form_or_a_bad_request(data: bytes, sizes: list[int]) -> None:
    """No bytes may cause another error."""
    try:
        for part in read_parts(reader(data, sizes), "b"):
            b"".join(part.content)
    except BadRequestError:
        pass


@given(st.integers(0, 400))
def test_an_incomplete_body_is_refused(length: int) -> None:
    """Wherever it ends before the last boundary."""
    data = body([b"hello", b"", b"world"])
    cut = data[: min(length, len(data) - 5)]
    with pytest.raises(BadRequestError):
        for part in read_parts(reader(cut, [16]), "bb"):
            b"".join(part.content)


def test_preamble_and_epilogue_are_allowed() -> None:
    """RFC 2046 allows them around the parts; the reader ignores them."""
    data = b"preamble\r\n" + body([b"x"]) + b"epilogue"
    assert [b"".join(part.content) for part in read_parts(reader(data, [5]), "bb")] == [b"x"]


def test_too_many_parts_are_too_large() -> None:
    """The limit is a thousand parts."""
    assert len(list(read_parts(reader(body([b""] * 1000), [65536]), "bb"))) == 1000
    with pytest.raises(TooLargeError):
        list(read_parts(reader(body([b""] * 1001), [65536]), "bb"))


@pytest.mark.parametrize("boundary", ["", "b" * 71, "ü"])
def test_bad_boundaries_are_refused(boundary: str) -> None:
    """Before the body is read."""
    with pytest.raises(BadRequestError, match="boundary"):
        list(read_parts(lambda: b"", boundary))
