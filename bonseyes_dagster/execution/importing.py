"""How the modules of a project are imported: from its folder first while its definitions load, and last afterwards."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["importing_from"]


@contextmanager
def importing_from(folder: Path | str) -> Iterator[None]:
    """Import from a project's folder first, as Dagster does while it loads definitions; from then on, from it last.

    So its modules stay importable, and none takes the place of one of Python's that is imported later.
    """
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = [*(entry for entry in sys.path if entry != str(folder)), str(folder)]
