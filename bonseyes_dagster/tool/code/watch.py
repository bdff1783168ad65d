"""Whether the code of a container is still the code that its version is made of; the worker and the servers ask."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bonseyes_dagster.sources import Sources
from bonseyes_dagster.tool.code.packages import Packages

__all__ = ["CodeWatch"]

_MOST_NAMES = 3
_SINCE_START = "The code of this tool changed since it started ({}); restart the container to use the changed code."
_MEANWHILE = "The code of this tool changed while this artifact was made ({})."
_WHILE_LOADED = "The code of this tool changed while it was loaded ({}); restart the container to use the changed code."


class CodeWatch:
    """Compares the files and packages of now with those of the start. Each process has its own.

    `begin` and `end` go around whatever runs the code, `difference` is for everybody else. A result is a sentence, or
    None while all is as it was. While nothing changes, each costs a stat for each file.
    """

    def __init__(self, sources: Sources, packages: Packages) -> None:
        self._sources = sources
        self._packages = packages
        self._seen = sources
        self._seen_packages = packages
        self._difference: str | None = None
        self._fault: str | None = None
        self._lock = threading.Lock()

    def difference(self) -> str | None:
        """Return in what the code differs now from that of the start."""
        with self._lock:
            self._look()
            return self._fault or self._difference

    def begin_loading(self) -> None:
        """Look before the code is imported."""
        self._seen.remove_stale_bytecode()
        self.begin()

    def end_loading(self) -> str | None:
        """Look after the code was imported; what was imported wrong stays so, also when the files are restored."""
        changes = self._end()
        self._fault = _WHILE_LOADED.format(_listed(changes)) if changes else self._difference
        return self._fault

    def begin(self) -> str | None:
        """Look before an artifact is made; return in what its code is not that of the version."""
        return self.difference()

    def end(self) -> str | None:
        """Look after it was made; return a sentence when the code changed meanwhile, also when it was restored."""
        changes = self._end()
        return _MEANWHILE.format(_listed(changes)) if changes else None

    def _end(self) -> list[str]:
        with self._lock:
            return self._look()

    def _look(self) -> list[str]:
        """Look anew, and return what was touched since the last look."""
        touched: list[str] = []
        if not self._seen.is_current():
            touched += self._read_sources()
        if not self._seen_packages.is_current():
            touched += self._read_packages()
        return touched

    def _read_sources(self) -> list[str]:
        try:
            now = self._seen.again()
        except OSError as error:
            self._difference = _SINCE_START.format(f"{error.filename} cannot be read: {error.strerror}")
            return [str(error.filename)]
        before, self._seen = self._seen, now
        # Those that changed may have been run meanwhile, and what Python compiled of them kept.
        now.remove_stale_bytecode()
        self._compare()
        return [] if before.is_same(now) else before.changes(now)

    def _read_packages(self) -> list[str]:
        before, self._seen_packages = self._seen_packages, self._seen_packages.again()
        self._compare()
        changed = set(before.installed.items()) ^ set(self._seen_packages.installed.items())
        return sorted({path.rpartition("/")[2] for path, _ in changed})

    def _compare(self) -> None:
        different = self._sources.differences(self._seen)
        different += sorted({*self._packages.names} ^ {*self._seen_packages.names})
        self._difference = _SINCE_START.format(_listed(different)) if different else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
