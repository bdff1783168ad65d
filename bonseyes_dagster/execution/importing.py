"""Imports a project's modules: its folder is first in `sys.path` while definitions load, and last afterwards."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["importing_from"]


@contextmanager
def importing_from(folder: Path | str) -> Iterator[None]:
    """Put a project's folder first in `sys.path`, as Dagster does while it loads definitions; put it last at the end.

    So the project's modules stay importable, and none of them hides a module of Python that is imported later.
    """
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = [*(entry for entry in sys.path if entry != str(folder)), str(folder)]
