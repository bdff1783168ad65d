"""A zip archive of uncompressed files, made while it is sent. Its length is known before the first byte.

This project has its own writer because a general library is slow: it took four times the processor time for a folder of
many small files. The archive contains only names and contents, so the same files give the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["Archive"]

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_UTF8 = 0x800
_HAS_DESCRIPTOR = 0x8  # CRC and sizes follow the content
_VERSION, _VERSION_64 = 20, 45
_MADE_BY = 3 << 8 | _VERSION_64  # 3: modes are those of Unix
_MODE = 0o100644 << 16
_DATE = 1 << 5 | 1  # 1 January 1980, the earliest date of the format
_IN_EXTRA = 0xFFFFFFFF
_MANY = 0xFFFF
# A file up to this size is read before its header, so that the header can hold the CRC.
_SHORT_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18


class _Member(NamedTuple):
    name: bytes
    size_bytes: int
    offset: int
    open: Callable[[], BinaryIO]

    @property
    def is_long(self) -> bool:
        return self.size_bytes > _SHORT_BYTES

    @property
    def is_huge(self) -> bool:
        return self.size_bytes >= _IN_EXTRA

    def local(self, crc: int) -> bytes:
        flags, size_bytes, extra = _UTF8, self.size_bytes, b""
        if self.is_long:
            flags, size_bytes = _UTF8 | _HAS_DESCRIPTOR, 0
        if self.is_huge:
            size_bytes, extra = _IN_EXTRA, _extra(0, 0)
        version = _VERSION_64 if self.is_huge else _VERSION
        sizes = (size_bytes, size_bytes, len(self.name), len(extra))
        return _LOCAL.pack(b"PK\3\4", version, flags, 0, 0, _DATE, crc, *sizes) + self.name + extra

    def descriptor(self, crc: int) -> bytes:
        return struct.pack("<4sI2Q" if self.is_huge else "<4s3I", b"PK\7\x08", crc, self.size_bytes, self.size_bytes)

    def central(self, crc: int) -> bytes:
        flags = _UTF8 | _HAS_DESCRIPTOR if self.is_long else _UTF8
        large = [self.size_bytes] * 2 if self.is_huge else []
        if self.offset >= _IN_EXTRA:
            large.append(self.offset)
        extra = _extra(*large) if large else b""
        size_bytes, offset = min(self.size_bytes, _IN_EXTRA), min(self.offset, _IN_EXTRA)
        version = _VERSION_64 if extra else _VERSION
        sizes = (size_bytes, size_bytes, len(self.name), len(extra))
        header = (_MADE_BY, version, flags, 0, 0, _DATE, crc, *sizes, 0, 0, 0, _MODE, offset)
        return _CENTRAL.pack(b"PK\1\2", *header) + self.name + extra


def _extra(*values: int) -> bytes:
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


class Archive:
    """Files for a zip archive; iterate over it for the archive's bytes, in pieces that are large enough to write."""

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self._offset = 0
        self._central_bytes = 0

    def add(self, path: str, size_bytes: int, opened: Callable[[], BinaryIO]) -> None:
        """Add a file of exactly `size_bytes`; the archive calls `opened` when it reaches the file."""
        member = _Member(path.encode(), size_bytes, self._offset, opened)
        self._members.append(member)
        self._offset += len(member.local(0)) + size_bytes + (len(member.descriptor(0)) if member.is_long else 0)
        self._central_bytes += len(member.central(0))

    @property
    def size_bytes(self) -> int:
        """Return the length of the whole archive."""
        return self._offset + self._central_bytes + len(self._end())

    def __iter__(self) -> Iterator[bytes]:
        """Yield the archive; raise OSError if a file is shorter than its announced size."""
        return _joined(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        crcs = array("I")
        for member in self._members:
            crc = 0
            with member.open() as file:
                if member.is_long:
                    yield member.local(0)
                    for data in _chunks(file, member):
                        crc = zlib.crc32(data, crc)
                        yield data
                    yield member.descriptor(crc)
                else:
                    data = b"".join(_chunks(file, member))
                    crc = zlib.crc32(data)
                    yield member.local(crc)
                    yield data
            crcs.append(crc)
        for member, crc in zip(self._members, crcs, strict=True):
            yield member.central(crc)
        yield self._end()

    def _end(self) -> bytes:
        count, size, offset = len(self._members), self._central_bytes, self._offset
        numbers = (min(count, _MANY), min(count, _MANY), min(size, _IN_EXTRA), min(offset, _IN_EXTRA))
        end = _END.pack(b"PK\5\6", 0, 0, *numbers, 0)
        if count < _MANY and size < _IN_EXTRA and offset < _IN_EXTRA:
            return end
        end_64 = (44, _MADE_BY, _VERSION_64, 0, 0, count, count, size, offset)
        return _END_64.pack(b"PK\6\6", *end_64) + _LOCATOR_64.pack(b"PK\6\7", 0, offset + size, 1) + end


def _chunks(file: BinaryIO, member: _Member) -> Iterator[bytes]:
    left = member.size_bytes
    while left > 0:
        # Not more than the file has: for a small file, a large buffer would cost most of the time.
        data = file.read(min(_SHORT_BYTES, left))
        if not data:
            raise OSError(f"The file {member.name.decode()} has become shorter.")
        left -= len(data)
        yield data


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces, to avoid three writes for each small file."""
    waiting: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        waiting.append(piece)
        size_bytes += len(piece)
        if size_bytes >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size_bytes = 0
    if waiting:
        yield b"".join(waiting)
