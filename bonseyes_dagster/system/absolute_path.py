"""Importing this removes relative entries from `sys.path`: a file in the working folder is nobody's module.

uWSGI puts "." and "" before the standard library. A tool would import what lies in its folder for temporary files, and
each service what lies in the folder of the project. So the modules that uWSGI loads import this before all others.
"""

from __future__ import annotations

import os
import sys

__all__: list[str] = []

sys.path[:] = [entry for entry in sys.path if os.path.isabs(entry)]  # noqa: PTH117 - pathlib is not imported yet
