"""Find imported modules that the tool's version does not cover.

The version covers the tool's own modules, installed packages and Python itself. The worker and its children use this.
"""

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
    """The modules of this process that come from elsewhere. A forked child continues the search of its parent."""

    def __init__(self, tool: ToolFolder) -> None:
        folders = [tool.folder, *tool.code, Path(version.__file__).parent]
        paths = {*map(str, folders), *(str(folder.resolve()) for folder in folders), *sysconfig.get_paths().values()}
        paths |= {sys.prefix, sys.base_prefix, sys.exec_prefix, tempfile.gettempdir()}
        self._covered = tuple(path.rstrip(_ENDING) + _ENDING for path in paths if path)
        self._known: set[str] = set()
        self._newest: tuple[int, str | None] = (0, None)
        self._found: dict[str, str] = {}

    def find(self) -> dict[str, str]:
        """Return `{module name: file}` of these modules; modules from earlier calls are not looked at again."""
        newest = len(sys.modules), next(reversed(sys.modules), None)
        if newest == self._newest:
            # In a forked child, comparing all names would copy each memory page with a name: a millisecond.
            return self._found
        self._newest = newest
        for name in sys.modules.keys() - self._known:
            file = _file(sys.modules.get(name))
            if file is not None and not file.startswith(self._covered):
                self._found[name] = file
            self._known.add(name)
        return self._found


def _file(module: ModuleType | None) -> str | None:
    """Return the file that the module was imported from; a module that a library generates has none."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    return origin if isinstance(origin, str) and origin.startswith("/") else None
