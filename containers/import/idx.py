"""Reads IDX archives, the format of the MNIST family, as a stream. Each defect has its own error message.

The import tool reads its two archives through this module.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError

__all__ = ["IdxArchive"]

_log = logging.getLogger(__name__)
_GZIP_MAGIC = b"\x1f\x8b"
_TYPES = {0x08: "unsigned bytes", 0x09: "signed bytes", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_UNSIGNED_BYTES = 0x08
_AXES = {1: "labels (count)", 3: "images (count, rows, columns)"}
_HINTS = dict.fromkeys(_AXES, "the images and the labels may be swapped.")
_HINTS[4] = "convert images with colour channels to shades of grey."
_MOST_PIXELS = 2**26


class IdxArchive:
    """An archive of unsigned bytes, compressed with gzip or not. A context manager.

    Args:
        path: The file. Its content decides whether it is gzip, not its name.
        title: The archive's name in error messages.
        dimensions: 3 for images, 1 for labels.
    """

    def __init__(self, path: Path, title: str, dimensions: int) -> None:
        self._title = title
        self._file = _open(path, title)
        self._read_bytes = 0
        self._sample_index = 0
        try:
            self.shape = self._read_header(path, dimensions)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def count(self) -> int:
        """Return the number of samples."""
        return self.shape[0]

    def read(self, count: int) -> NDArray[np.uint8]:
        """Return the next `count` samples, fewer at the end. Raise ToolError when the archive ends too early."""
        count = min(count, self.count - self._sample_index)
        size = count * math.prod(self.shape[1:])
        data = self._read(size)
        if len(data) < size:
            promised = 4 + 4 * len(self.shape) + math.prod(self.shape)
            raise ToolError(
                f"The {self._title} archive is truncated: its header promises {promised:,} bytes, but it ends after"
                f" {self._read_bytes:,}."
            )
        self._sample_index += count
        return np.frombuffer(data, np.uint8).reshape(count, *self.shape[1:])

    def check_end(self) -> None:
        """Raise ToolError when bytes follow the last sample."""
        if self._read(1):
            raise ToolError(
                f"The {self._title} archive must end after the {self.count:,} samples that its header promises,"
                " but more bytes follow."
            )

    def _read_header(self, path: Path, dimensions: int) -> tuple[int, ...]:
        if path.stat().st_size == 0:
            raise ToolError(f"The {self._title} archive is empty: it has 0 bytes.")
        magic = self._read(4)
        if not magic:
            raise ToolError(f"The {self._title} archive is empty: its gzip stream holds 0 bytes.")
        self._check_magic(magic, dimensions)
        sides = self._read(4 * dimensions)
        if len(sides) < 4 * dimensions:
            raise ToolError(
                f"The {self._title} archive is truncated: it ends after {self._read_bytes} of the"
                f" {4 + 4 * dimensions} bytes of its header."
            )
        shape = tuple(int(side) for side in np.frombuffer(sides, ">u4"))
        self._check_shape(shape)
        return shape

    def _check_magic(self, magic: bytes, dimensions: int) -> None:
        wanted = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
            raise ToolError(
                f"The {self._title} archive is not an IDX archive: it starts with {magic.hex()}, not {wanted.hex()}."
            )
        if magic[2] != _UNSIGNED_BYTES:
            raise ToolError(f"The {self._title} archive holds {_TYPES[magic[2]]}; it must hold unsigned bytes.")
        if magic[3] != dimensions:
            hint = _HINTS.get(magic[3], f"it must hold {_AXES[dimensions]}.")
            raise ToolError(
                f"The {self._title} archive has {magic[3]} dimension{'s' * (magic[3] != 1)},"
                f" but {_AXES[dimensions]} have {dimensions}; {hint}"
            )

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape[0] == 0:
            raise ToolError(f"The {self._title} archive is empty: its header promises 0 samples.")
        pixels = math.prod(shape[1:])
        if not 0 < pixels <= _MOST_PIXELS:
            size = " x ".join(f"{side:,}" for side in shape[1:])
            raise ToolError(
                f"The {self._title} archive's header promises samples of {size} pixels;"
                f" a sample must have between 1 and {_MOST_PIXELS:,} pixels."
            )

    def _read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        try:
            data = self._file.read(size)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            # The message gives no position: a buffer reads ahead, so the position would be wrong.
            raise ToolError(f"The {self._title} archive's gzip stream is broken: {error}.") from error
        self._read_bytes += len(data)
        return data


class _Gunzip(io.RawIOBase):
    """The content of a gzip file. Like `gunzip`, it ignores other bytes after the gzip stream, with a warning."""

    def __init__(self, path: Path, title: str) -> None:
        self._file = gzip.GzipFile(path, "rb")
        self._title = title
        self._is_at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill some of `buffer`; 0 at the end."""
        if self._is_at_end:
            return 0
        try:
            # One read at a time: an error does not lose the bytes before it.
            data = self._file.read1(len(buffer))
        except gzip.BadGzipFile as error:
            if not str(error).startswith("Not a gzipped file"):
                raise
            self._is_at_end = True
            _log.warning("The %s archive has bytes after its gzip stream; they are ignored.", self._title)
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path, title: str) -> IO[bytes]:
    """Open the archive. Its first bytes decide whether it is gzip, because its name may be wrong."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
    if is_gzip:
        # Buffered: a read of a plain GzipFile may return fewer bytes than requested.
        return io.BufferedReader(_Gunzip(path, title), 2**20)
    return path.open("rb")
