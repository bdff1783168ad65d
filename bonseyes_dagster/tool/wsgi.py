"""The module that uWSGI loads: it makes the application of the tool that the environment names."""

from __future__ import annotations

import bonseyes_dagster.system.absolute_path  # noqa: F401 - before all others
from bonseyes_dagster.tool.app import application as make_application

application = make_application()
