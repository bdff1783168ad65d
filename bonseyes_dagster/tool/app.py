"""Build the Flask application and the worker of a tool container. uWSGI calls `application` and `work`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from flask import Flask

from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.artifacts.audit import keep_auditing
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.lost_and_found import notices
from bonseyes_dagster.tool.code.watch import CodeWatch
from bonseyes_dagster.tool.configuration import load, watch_code
from bonseyes_dagster.tool.store import Store
from bonseyes_dagster.tool.worker.worker import Worker
from bonseyes_dagster.web import openapi
from bonseyes_dagster.web.app import create_app as create_base_app
from bonseyes_dagster.web.background import start_in_background
from bonseyes_dagster.web.routes import artifact_blueprint

__all__ = ["application", "create_app", "work"]

_PAUSE_S = 1.0


def create_app(tool: ToolDescription, volume: Volume, settings: Settings, code: CodeWatch | None = None) -> Flask:
    """Return the application that serves the artifacts of `tool` on `volume`; `code` watches the tool's files."""
    store = Store(tool, volume, settings, code)
    app = create_base_app(
        tool.name,
        description=lambda: store.describe().to_json(),
        check_health=store.check_health,
        gauges=store.gauges,
        openapi=lambda: openapi.service_document(tool),
        notices=lambda: notices(volume),
    )
    app.register_blueprint(artifact_blueprint(store, upload_limit_bytes=settings.upload_limit_bytes))
    return app


def application() -> Flask:
    """Return the application for the settings in the environment; uWSGI calls this once, before it forks."""
    _, description, volume, settings = load()
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    app = create_app(description, volume, settings, watch_code())
    start_in_background(settings.container or description.name, settings, lambda: keep_auditing(volume))
    return app


def work() -> None:
    """Run the worker until it stops; uWSGI's mule calls this."""
    code = 1
    try:
        # The parent of the mule is uWSGI's master. On SIGHUP the master restarts all processes, and they load the code.
        Worker(*load(), watch_code(), lambda: os.kill(os.getppid(), signal.SIGHUP)).run()
        code = 0
    except Exception:
        logging.getLogger(__name__).exception("The worker failed and is restarted.")
        # uWSGI restarts the mule at once; the cause of the failure needs a moment to pass.
        time.sleep(_PAUSE_S)
    finally:
        # Skip the clean-up of uWSGI and of the tool: everything that counts is on disk.
        os._exit(code)
