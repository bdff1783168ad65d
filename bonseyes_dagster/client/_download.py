"""Download one file from a container to the disk.

If the digest is known, the download continues where an earlier one stopped. It computes the digest while bytes arrive,
and renames the complete file to its final name.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import requests

from bonseyes_dagster.backoff import Backoff
from bonseyes_dagster.client._transport import Transport, iter_body
from bonseyes_dagster.errors import ConnectionFailedError, DigestMismatchError, RangeError, UnavailableError

__all__ = ["fetch", "file_sha256"]

OnBytes = Callable[[int], None]

_CHUNK_BYTES = 1 << 20
_FRUITLESS_TRIES = 5
_REPR_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


def fetch(
    transport: Transport,
    path: str,
    target: Path,
    *,
    size_bytes: int | None = None,
    sha256: str | None = None,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Download `path` to the file `target` and return it; `target` never holds a partial file.

    It verifies the digest `sha256`, or, without `sha256`, the server's `Repr-Digest`. An interrupted call with `sha256`
    leaves a file `.TARGET.DIGEST.part`, which the next call continues; without `sha256`, the next call starts again.
    `on_bytes` gets the number of added bytes, or the negative number of removed bytes. Raises DigestMismatchError when
    the bytes are wrong, ConnectionFailedError when the download fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name may already have the greatest length that the file system allows, so shorten it first.
    stem = target.name.encode()[:200].decode(errors="ignore")
    part = target.with_name(f".{stem}.{(sha256 or 'unverified')[:16]}.part")
    with _locked(part) as file:
        download = _Download(transport, path, file, size_bytes, sha256, on_bytes or (lambda _: None))
        resumed_bytes = download.resume() if sha256 else download.restart()
        try:
            download.run()
        except DigestMismatchError:
            if not resumed_bytes:
                part.unlink(missing_ok=True)
                raise
            # The bytes of the earlier call or those of the server are wrong: download all bytes once more.
            download.restart()
            _run_or_remove(download, part)
        part.replace(target)
    return target


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run_or_remove(download: _Download, part: Path) -> None:
    try:
        download.run()
    except DigestMismatchError:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Open and lock the partial file, so that a second download to the same target waits."""
    while True:
        with part.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_same_file(part, file):
                yield file
                return
        # Another download renamed the file while this one waited for the lock: open a new file.


def _is_same_file(part: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(part.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@dataclass(slots=True)
class _Download:
    """The download of one file in progress."""

    transport: Transport
    path: str
    file: BinaryIO
    size_bytes: int | None
    sha256: str | None
    on_bytes: OnBytes
    had_bytes: int = 0
    etag: str | None = None
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def resume(self) -> int:
        """Hash the bytes that an earlier call left, and return their number."""
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK_BYTES):
            self._count(chunk)
        if self.size_bytes is not None and self.had_bytes > self.size_bytes:
            self.restart()
        return self.had_bytes

    def restart(self) -> int:
        """Remove all bytes received so far, and return 0."""
        self.file.truncate(0)
        self.file.seek(0)
        self.hash = hashlib.sha256()
        self.on_bytes(-self.had_bytes)
        self.had_bytes = 0
        self.etag = None
        return 0

    def run(self) -> None:
        """Receive all bytes, with retries, and verify length and digest."""
        fruitless = 0
        backoff = Backoff(0.2, 10.0)
        while self.size_bytes is None or self.had_bytes < self.size_bytes or not self.had_bytes:
            before = self.had_bytes
            try:
                self._receive()
                break
            except RangeError:
                self.restart()
                fruitless += 1
            except (ConnectionFailedError, UnavailableError):
                fruitless += 1
                if self.had_bytes > before:
                    fruitless = 0
                    backoff.reset()
                time.sleep(backoff.take())
                if fruitless >= _FRUITLESS_TRIES:
                    raise
            if fruitless >= _FRUITLESS_TRIES:
                raise ConnectionFailedError(f"{self.transport.url(self.path)} refuses every range request.")
        self.file.flush()
        self._verify()

    def _receive(self) -> None:
        # `identity`, because ranges and digests refer to the uncompressed file.
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self.had_bytes:
            headers["Range"] = f"bytes={self.had_bytes}-"
            if self.etag:
                headers["If-Range"] = self.etag
        with self.transport.request("GET", self.path, headers=headers, stream=True) as response:
            if self.had_bytes and response.status_code != 206:
                self.restart()
            self._read_headers(response)
            for chunk in iter_body(response):
                if self.size_bytes is not None and self.had_bytes + len(chunk) > self.size_bytes:
                    where = self.transport.url(self.path)
                    raise DigestMismatchError(f"{where} sent more than the promised {self.size_bytes} bytes.")
                self.file.write(chunk)
                self._count(chunk)

    def _read_headers(self, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag.startswith('"') else None
        promised = _REPR_DIGEST.search(response.headers.get("Repr-Digest", ""))
        if self.sha256 is None and promised:
            self.sha256 = base64.b64decode(promised[1]).hex()

    def _count(self, chunk: bytes) -> None:
        self.hash.update(chunk)
        self.had_bytes += len(chunk)
        self.on_bytes(len(chunk))

    def _verify(self) -> None:
        where = self.transport.url(self.path)
        if self.size_bytes is not None and self.had_bytes != self.size_bytes:
            raise DigestMismatchError(f"{where} sent {self.had_bytes} bytes, not the promised {self.size_bytes}.")
        if self.sha256 is not None and self.hash.hexdigest() != self.sha256:
            raise DigestMismatchError(
                f"{where} sent bytes with the sha256 {self.hash.hexdigest()}, not the promised {self.sha256}."
            )
