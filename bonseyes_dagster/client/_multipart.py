"""A multipart/form-data body that streams its files from disk: memory use does not grow with the upload."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from bonseyes_dagster.errors import InvalidError

__all__ = ["FileSource", "Multipart"]

FileSource = str | os.PathLike[str] | bytes | BinaryIO
"""A file to upload: its path, its bytes, or an open, seekable binary file (sent from its current position)."""

_CHUNK_BYTES = 1 << 18


class Multipart:
    """A body of known length. It can be iterated again, so that a failed request can be repeated."""

    def __init__(self, fields: Sequence[tuple[str, str]], files: Mapping[str, FileSource]) -> None:
        self._boundary = secrets.token_hex(16)
        self._pieces: list[bytes | _Source] = []
        for name, value in fields:
            self._pieces.append(self._head(name) + value.encode() + b"\r\n")
        for name, file in files.items():
            source = _Source(name, file)
            self._pieces += [self._head(name, source.filename), source, b"\r\n"]
        self._pieces.append(f"--{self._boundary}--\r\n".encode())

    @property
    def content_type(self) -> str:
        """Return the value of Content-Type."""
        return f"multipart/form-data; boundary={self._boundary}"

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from piece

    def _head(self, name: str, filename: str | None = None) -> bytes:
        lines = [f"--{self._boundary}", f'Content-Disposition: form-data; name="{_quoted(name)}"']
        if filename is not None:
            lines[1] += f'; filename="{_quoted(filename)}"'
            lines.append("Content-Type: application/octet-stream")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class _Source:
    """One file of the body. It sends as many bytes as the file had when the body was built."""

    def __init__(self, name: str, file: FileSource) -> None:
        self._file = file
        self._start = 0
        self.filename = name
        if isinstance(file, bytes):
            self._length = len(file)
        elif isinstance(file, (str, os.PathLike)):
            self.filename = Path(file).name
            self._length = _size_of(name, Path(file))
        else:
            self.filename = Path(str(getattr(file, "name", name))).name
            self._start = file.tell()
            self._length = file.seek(0, os.SEEK_END) - self._start

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        if isinstance(self._file, bytes):
            yield self._file
        elif isinstance(self._file, (str, os.PathLike)):
            with Path(self._file).open("rb") as stream:
                yield from self._read(stream)
        else:
            self._file.seek(self._start)
            yield from self._read(self._file)

    def _read(self, stream: BinaryIO) -> Iterator[bytes]:
        left = self._length
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise InvalidError(f"{self.filename} became shorter during the upload.")
            left -= len(chunk)
            yield chunk


def _size_of(name: str, path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return stream.seek(0, os.SEEK_END)
    except OSError as error:
        sentence = f"{path} cannot be read: {error.strerror}."
        raise InvalidError(f"{name}: {sentence}", detail={name: sentence}) from error


def _quoted(text: str) -> str:
    # Like browsers (WHATWG): percent-encode only the characters that would end the quoted string.
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
