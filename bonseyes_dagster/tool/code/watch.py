"""Watch whether the code of a container is still the code of its version; the worker and the servers use this."""

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
    """Compares the current files and packages with those of the start. Each process has its own watch.

    Call `begin` and `end` around each run of the code, and `difference` at any other time. They return a sentence, or
    None if nothing has changed. Without a change, each call costs one stat per file.
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
        """Return how the code differs now from the code of the start."""
        with self._lock:
            self._look()
            return self._fault or self._difference

    def begin_loading(self) -> None:
        """Check the code before its import."""
        self._seen.remove_stale_bytecode()
        self.begin()

    def end_loading(self) -> str | None:
        """Check the code after its import. A change during the import stays a fault, also if the files are restored."""
        changes = self._end()
        self._fault = _WHILE_LOADED.format(_join_names(changes)) if changes else self._difference
        return self._fault

    def begin(self) -> str | None:
        """Check the code before an artifact is made; return how it differs from the code of the version."""
        return self.difference()

    def end(self) -> str | None:
        """Check the code after an artifact is made; return a sentence if it changed meanwhile, even if restored."""
        changes = self._end()
        return _MEANWHILE.format(_join_names(changes)) if changes else None

    def _end(self) -> list[str]:
        with self._lock:
            return self._look()

    def _look(self) -> list[str]:
        """Check anew, and return the names that were touched since the last check."""
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
        # Python may have run a changed file meanwhile and saved its bytecode.
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
        self._difference = _SINCE_START.format(_join_names(different)) if different else None


def _join_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
