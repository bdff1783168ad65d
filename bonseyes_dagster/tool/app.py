"""The Flask application of a tool container, and the functions that uWSGI calls: one place that wires everything."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import sys
from functools import cache
from pathlib import Path

from flask import Flask

from bonseyes_dagster.description import ToolFolder, load_tool
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.layout import Volume
from bonseyes_dagster.tool.registration import register_in_background
from bonseyes_dagster.tool.store import Store
from bonseyes_dagster.tool.worker import Worker
from bonseyes_dagster.web import openapi
from bonseyes_dagster.web.app import create_app as create_base_app
from bonseyes_dagster.web.routes import artifact_blueprint

__all__ = ["application", "create_app", "load", "work"]

# The image's digest, where the one who deploys knows it.
IMAGE_VARIABLE = "BONSEYES_IMAGE"


@cache
def load() -> tuple[ToolFolder, ToolDescription, Volume, Settings]:
    """Read the environment and tool.yml; raise SettingsError with everything that is wrong."""
    settings = Settings.from_environ()
    if settings.tool is None:
        raise SettingsError("BONSEYES_TOOL must name the folder with the tool's tool.yml.")
    if settings.volume is None:
        raise SettingsError("BONSEYES_VOLUME must name the folder that keeps the artifacts.")
    tool = load_tool(settings.tool)
    return tool, _described(tool), Volume(settings.volume), settings


def _described(tool: ToolFolder) -> ToolDescription:
    """Return the description with a version that changes with the image, too: its Python and its packages."""
    # The folders' names hold names and versions; to read each package's metadata takes a second.
    folders = (Path(entry) for entry in sys.path if entry)
    packages = sorted({path.name for folder in folders if folder.is_dir() for path in folder.glob("*.dist-info")})
    image = "\n".join([tool.description.version, os.environ.get(IMAGE_VARIABLE, ""), sys.version, *packages])
    version = hashlib.sha256(image.encode()).hexdigest()[:16]
    return dataclasses.replace(tool.description, version=version)


def create_app(tool: ToolDescription, volume: Volume, settings: Settings) -> Flask:
    """Return the application that serves the artifacts of `tool` on `volume`."""
    store = Store(tool, volume, settings)
    app = create_base_app(
        tool.name,
        description=lambda: tool.to_json(),
        check_health=store.check_health,
        gauges=store.gauges,
        openapi=lambda: openapi.service_document(tool),
    )
    app.register_blueprint(artifact_blueprint(store, upload_limit_bytes=settings.upload_limit_bytes))
    return app


def application() -> Flask:
    """Return the application that the environment describes; uWSGI calls it once, before it forks."""
    _, description, volume, settings = load()
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    app = create_app(description, volume, settings)
    register_in_background(settings.container or description.name, settings)
    return app


def work() -> None:
    """Be the worker; uWSGI's mule calls this."""
    code = 1
    try:
        Worker(*load()).run()
        code = 0
    except Exception:
        logging.getLogger(__name__).exception("the worker failed")
    finally:
        # Neither uWSGI's nor the tool's clean-up is wanted: everything that counts is on disk.
        os._exit(code)
