"""The WSGI module of the visualization container, which uWSGI imports; the environment holds the settings."""

from __future__ import annotations

import bonseyes_dagster.system.absolute_path  # noqa: F401 - before all others
from bonseyes_dagster.visualization.app import create

application = create()
