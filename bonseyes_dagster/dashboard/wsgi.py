"""The WSGI module of the dashboard, which uWSGI imports; the environment holds the settings."""

from __future__ import annotations

import bonseyes_dagster.system.absolute_path  # noqa: F401 - before all others
from bonseyes_dagster.dashboard.app import create

application = create()
