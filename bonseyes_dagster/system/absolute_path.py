"""Remove relative entries from `sys.path` on import, so that no process imports a file of its working folder.

uWSGI puts "." and "" before the standard library. A tool would then import files from its temporary folder, and each
service would import files from the project's folder. So the modules that uWSGI loads import this module first.
"""

from __future__ import annotations

import os
import sys

__all__: list[str] = []

sys.path[:] = [entry for entry in sys.path if os.path.isabs(entry)]  # noqa: PTH117 - pathlib is not imported yet
