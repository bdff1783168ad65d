"""Which containers registered and what each last said of itself: one file in the volume, always replaced whole."""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import InvalidError, StorageFullError, UnavailableError
from bonseyes_dagster.urls import NAME_PATTERN, is_name

__all__ = ["ADDRESS_PATTERN", "LIMIT", "Registry", "check_name"]

LIMIT = 1000
# A registered container is asked for its description: that must not reach machines by address, in any notation that
# resolvers know (four numbers or fewer, decimal, octal or hexadecimal).
ADDRESS_PATTERN = (
    r"^(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+))*\.?$|^[lL][oO][cC][aA][lL][hH][oO][sS][tT]$"
)
_ADDRESS = re.compile(ADDRESS_PATTERN)

Entries = Mapping[str, Mapping[str, Any]]


def check_name(name: object) -> str:
    """Return `name` if it can be a container's; raise InvalidError otherwise."""
    if not isinstance(name, str) or not is_name(name):
        raise _invalid(f"a container's name must match {NAME_PATTERN} and hold no '..'")
    if _ADDRESS.search(name):
        raise _invalid(f"{name!r} is an address; a container has a name")
    return name


def _invalid(sentence: str) -> InvalidError:
    return InvalidError(f"name: {sentence}", detail={"name": sentence})


class Registry:
    """The registered names, oldest first, each with the description that was last seen ({} before the first).

    Safe among threads and processes: writers hold a lock beside the file, readers see whole files only.
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
            return self._read()

    def add(self, name: str) -> None:
        """Register `name` durably; nothing happens if it is registered already."""
        if name in self.entries():
            return

        def change(entries: dict[str, Any]) -> None:
            if len(entries) >= LIMIT and name not in entries:
                raise StorageFullError(f"{LIMIT} containers are registered already, which is the limit")
            entries.setdefault(name, {})

        self._change(change)

    def describe(self, descriptions: Entries) -> None:
        """Remember what registered containers say of themselves; writes only what is new."""
        known = self.entries()
        new = {name: dict(text) for name, text in descriptions.items() if name in known and known[name] != text}
        if new:
            self._change(lambda entries: entries.update({k: v for k, v in new.items() if k in entries}))

    def check_health(self) -> None:
        """Raise UnavailableError when the file cannot be read or its folder not be written."""
        self.entries()
        if not os.access(self._file.parent, os.W_OK):
            raise UnavailableError(f"{self._file.parent} cannot be written")

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        with self._lock, self._exclusive():
            entries = dict(self._read())
            change(entries)
            _replace(self._file, json.dumps({"containers": entries}, ensure_ascii=False).encode())

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> Entries:
        try:
            stat = self._file.stat()
            if (stat.st_mtime_ns, stat.st_ino) != self._stamp:
                self._entries = _parse(self._file.read_bytes())
                self._stamp = (stat.st_mtime_ns, stat.st_ino)
        except FileNotFoundError:
            self._entries, self._stamp = {}, None
        except (OSError, ValueError) as error:
            raise UnavailableError(f"the registry {self._file} cannot be read: {error}") from error
        return self._entries


def _parse(content: bytes) -> Entries:
    body = json.loads(content)
    entries = body.get("containers") if isinstance(body, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError("it is not a registry")
    return entries


def _replace(path: Path, content: bytes) -> None:
    """Replace a file so that after a crash there is the old one or the new one, and after return the new one."""
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
