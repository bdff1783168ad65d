"""The dashboard container's WSGI application."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.dashboard.containers import Containers
from bonseyes_dagster.dashboard.registry import Registry
from bonseyes_dagster.dashboard.routes import dashboard_blueprint
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.web.app import create_app
from bonseyes_dagster.web.openapi import named_document

__all__ = ["OPENAPI", "create"]

OPENAPI = Path(__file__).with_name("openapi.yml")


def create(settings: Settings | None = None) -> Flask:
    """Return the application with the settings of the environment; its registry is in the volume."""
    settings = settings or Settings.from_environ()
    if settings.volume is None:
        raise SettingsError("BONSEYES_VOLUME is not set; it must be the folder for the dashboard's registry.")
    Path(settings.volume).mkdir(parents=True, exist_ok=True)
    registry = Registry(settings.volume)
    name = settings.container or "dashboard"
    containers = Containers(registry, Addresses.from_settings(settings), name)
    app = create_app(
        name,
        description=None,
        check_health=registry.check_health,
        gauges=lambda: {"containers": len(registry.entries())},
        openapi=named_document(OPENAPI, name),
        notices=registry.notices,
    )
    app.register_blueprint(dashboard_blueprint(registry, containers))
    return app
