"""The zip archive that is made while it is sent, read by the standard library."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, cast

import pytest

from bonseyes_dagster.web.responses.archive import Archive

GIB = 1 << 30
ZEROS = bytes(1 << 20)


def opener(content: bytes) -> Callable[[], BinaryIO]:
    """Return a function that opens a file with `content`."""
    return partial(io.BytesIO, content)


def archive_of(files: dict[str, bytes]) -> Archive:
    """Return the archive of `files`."""
    archive = Archive()
    for path, content in files.items():
        archive.add(path, len(content), opener(content))
    return archive


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"empty": b""},
        {"a/b.txt": b"text", "a/ü ñ 雪.bin": bytes(range(256)) * 9},
        {"short": ZEROS, "long": ZEROS + b"1", "after": b"x", "longer": b"ab" * (3 << 20)},
    ],
    ids=["nothing", "empty", "names", "long"],
)
def test_files_come_back_unchanged(files: dict[str, bytes]) -> None:
    """Names, contents and checksums are right, and so is the announced length."""
    archive = archive_of(files)
    content = b"".join(archive)
    assert len(content) == archive.size_bytes
    with zipfile.ZipFile(io.BytesIO(content)) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == files
        assert all(info.external_attr >> 16 == 0o100644 for info in read.infolist())


def test_the_same_files_give_the_same_bytes() -> None:
    """The ETag depends only on the files, so the archive must not contain the time of day."""
    files = {"a": b"1", "b/c": ZEROS * 2}
    assert b"".join(archive_of(files)) == b"".join(archive_of(files))


def test_more_files_than_zip_without_zip64_allows() -> None:
    """From 65,535 on, the count is in the zip64 end."""
    archive = Archive()
    for number in range(66_000):
        archive.add(f"{number}", 0, opener(b""))
    content = b"".join(archive)
    assert len(content) == archive.size_bytes
    with zipfile.ZipFile(io.BytesIO(content)) as read:
        assert read.namelist() == [f"{number}" for number in range(66_000)]


class Zeros(io.RawIOBase):
    """As many zero bytes as the reader wants, without memory for them."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return zeros."""
        return ZEROS[:size]


class Sparse(io.RawIOBase):
    """A file in memory that does not store zeros."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self.size = 0
        self.position = 0

    def append(self, piece: bytes) -> None:
        """Add the next bytes."""
        if piece is not ZEROS:
            self.pieces[self.size] = piece
        self.size += len(piece)

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self.position = offset + {0: 0, 1: self.position, 2: self.size}[whence]
        return self.position

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, zeros where none are kept."""
        size = self.size - self.position if size < 0 else min(size, self.size - self.position)
        assert size < 1 << 20, "only headers are to be read"
        result = bytearray(size)
        for start, piece in self.pieces.items():
            begin, end = max(start, self.position), min(start + len(piece), self.position + size)
            if begin < end:
                result[begin - self.position : end - self.position] = piece[begin - start : end - start]
        self.position += size
        return bytes(result)


def test_a_file_of_more_than_4_gib() -> None:
    """Its sizes, and the offset of the next file, are in zip64 fields; the CRC of 4 GiB takes about 2 s."""
    archive = Archive()
    archive.add("huge", 4 * GIB + 5, lambda: cast("BinaryIO", Zeros()))
    archive.add("small", 5, opener(b"after"))
    sparse = Sparse()
    for piece in archive:
        sparse.append(piece)
    assert sparse.size == archive.size_bytes
    with zipfile.ZipFile(cast("BinaryIO", sparse)) as read:
        assert read.getinfo("huge").file_size == 4 * GIB + 5
        assert read.getinfo("small").header_offset > 4 * GIB
        assert read.read("small") == b"after"


def test_a_file_that_became_shorter_breaks_the_answer() -> None:
    """The client must not take the archive for complete."""
    archive = Archive()
    archive.add("a", 10, opener(b"short"))
    with pytest.raises(OSError, match="shorter"):
        b"".join(archive)
