"""What uWSGI imports: the dashboard as the environment sets it up."""

from __future__ import annotations

from bonseyes_dagster.dashboard.app import create

application = create()
