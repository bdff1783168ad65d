"""Imported modules that a tool's version does not cover: neither its own, nor of an installed package, nor Python's."""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

from bonseyes_dagster import version
from bonseyes_dagster.description import ToolFolder

__all__ = ["UncoveredModules"]

_ENDING = "/"


class UncoveredModules:
    """The modules of this process that are imported from elsewhere; a forked child goes on where its parent was."""

    def __init__(self, tool: ToolFolder) -> None:
        folders = [tool.folder, *tool.code, Path(version.__file__).parent]
        paths = {*map(str, folders), *(str(folder.resolve()) for folder in folders), *sysconfig.get_paths().values()}
        paths |= {sys.prefix, sys.base_prefix, sys.exec_prefix, tempfile.gettempdir()}
        self._covered = tuple(path.rstrip(_ENDING) + _ENDING for path in paths if path)
        self._known: set[str] = set()
        self._newest: tuple[int, str | None] = (0, None)
        self._found: dict[str, str] = {}

    def look(self) -> dict[str, str]:
        """Return the file of each such module by the module's name; what was looked at before costs nothing."""
        newest = len(sys.modules), next(reversed(sys.modules), None)
        if newest == self._newest:
            # To compare all names would copy, in a forked child, each memory page that holds one: a millisecond.
            return self._found
        self._newest = newest
        for name in sys.modules.keys() - self._known:
            file = _file(sys.modules.get(name))
            if file is not None and not file.startswith(self._covered):
                self._found[name] = file
            self._known.add(name)
        return self._found


def _file(module: ModuleType | None) -> str | None:
    """Return the file that the import system read the module from; what a library generates has none."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    return origin if isinstance(origin, str) and origin.startswith("/") else None
