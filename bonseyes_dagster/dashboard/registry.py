"""The registered containers and the last description of each, in one file of the volume.

Each change replaces the whole file.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import InvalidError, NotFoundError, StorageFullError, UnavailableError
from bonseyes_dagster.system.replacing import replace_file
from bonseyes_dagster.urls import NAME_PATTERN, is_name

__all__ = ["ADDRESS_PATTERN", "LIMIT", "Registry", "check_name"]

LIMIT = 1000
_log = logging.getLogger(__name__)
# How long `/healthz` reports a damaged file.
_NOTICE_S = 7 * 24 * 3600.0
# The dashboard sends requests to registered names. So a name must not be `localhost` or an IP address. Resolvers know
# many notations of addresses: one to four numbers, each decimal, octal or hexadecimal.
ADDRESS_PATTERN = (
    r"^(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+))*\.?$|^[lL][oO][cC][aA][lL][hH][oO][sS][tT]$"
)
_ADDRESS = re.compile(ADDRESS_PATTERN)

Entries = Mapping[str, Mapping[str, Any]]


def check_name(name: object) -> str:
    """Return `name` if it is a valid container name; raise InvalidError otherwise."""
    if not isinstance(name, str) or not is_name(name):
        raise _invalid(f"It must match {NAME_PATTERN} and must not contain '..'.")
    if _ADDRESS.search(name):
        raise _invalid(f"{name!r} is an address; it must be the name of a container.")
    return name


def _invalid(sentence: str) -> InvalidError:
    return InvalidError(f"name: {sentence}", detail={"name": sentence})


class _DamagedError(UnavailableError):
    """The file exists, but it is not a registry."""


class Registry:
    """The registered names, oldest first, each with its last description ({} before the first one).

    Safe for threads and processes: writers lock a file beside the registry, and readers always see a complete file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "containers.json"
        self._lock_file = folder / "containers.lock"
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._entries: Entries = {}

    def entries(self) -> Entries:
        """Return every registered container."""
        with self._lock:
            try:
                return self._read()
            except _DamagedError:
                with self._exclusive():
                    return self._read_or_set_aside()

    def notices(self) -> list[str]:
        """Return a sentence for each damaged file that the dashboard renamed in the last week."""
        found = sorted(self._file.parent.glob(f"{self._file.name}.damaged-*"))
        return [
            f"The registry of containers was damaged; it is now {path.name}, and containers register again."
            for path in found
            if time.time() - path.stat().st_ctime < _NOTICE_S
        ]

    def add(self, name: str) -> None:
        """Register `name` durably; do nothing if it is registered already."""
        if name in self.entries():
            return

        def change(entries: dict[str, Any]) -> None:
            if len(entries) >= LIMIT and name not in entries:
                raise StorageFullError(f"The registry has {LIMIT} containers, which is the limit; remove one first.")
            entries.setdefault(name, {})

        self._change(change)

    def remove(self, name: str) -> None:
        """Remove `name` durably; raise NotFoundError if it is not registered."""
        if name not in self.entries():
            raise NotFoundError(f"There is no registered container {name[:128]!r}.")
        self._change(lambda entries: entries.pop(name, None))

    def describe(self, descriptions: Entries) -> None:
        """Store the descriptions of registered containers; write only if one has changed."""
        known = self.entries()
        new = {name: dict(text) for name, text in descriptions.items() if name in known and known[name] != text}
        if new:
            self._change(lambda entries: entries.update({k: v for k, v in new.items() if k in entries}))

    def check_health(self) -> None:
        """Raise UnavailableError if the file is not readable or its folder is not writable."""
        self.entries()
        if not os.access(self._file.parent, os.W_OK):
            raise UnavailableError(f"The folder {self._file.parent} is not writable.")

    def _change(self, change: Callable[[dict[str, Any]], object]) -> None:
        with self._lock, self._exclusive():
            entries = dict(self._read_or_set_aside())
            change(entries)
            content = json.dumps({"containers": entries}, ensure_ascii=False).encode()
            replace_file(self._file, content, is_durable=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read_or_set_aside(self) -> Entries:
        """Read under the lock of writers; rename a damaged file and return an empty registry."""
        try:
            return self._read()
        except _DamagedError as error:
            kept = self._file.with_name(f"{self._file.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            try:
                self._file.rename(kept)
            except OSError:
                raise error from None
            _log.error("%s It is now %s; containers register again within a minute.", error.message, kept.name)
            return self._read()

    def _read(self) -> Entries:
        try:
            stat = self._file.stat()
            if (stat.st_mtime_ns, stat.st_ino) != self._stamp:
                self._entries = _parse(self._file.read_bytes())
                self._stamp = (stat.st_mtime_ns, stat.st_ino)
        except FileNotFoundError:
            self._entries, self._stamp = {}, None
        except ValueError as error:
            raise _DamagedError(f"The registry {self._file} is damaged: {error}.") from error
        except OSError as error:
            raise UnavailableError(f"The registry {self._file} cannot be read: {error}.") from error
        return self._entries


def _parse(content: bytes) -> Entries:
    body = json.loads(content)
    entries = body.get("containers") if isinstance(body, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError("it is not a registry")
    return entries
