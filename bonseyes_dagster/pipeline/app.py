"""Makes the Flask application of a pipeline container, and connects its parts. `wsgi.py` calls it."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from flask import Flask

from bonseyes_dagster.execution.storage.instance import LOADED_FILE, WORKSPACE
from bonseyes_dagster.orchestration.project import load_pipeline, reload_pipeline
from bonseyes_dagster.pipeline.configuration import load_settings
from bonseyes_dagster.pipeline.document import pipeline_document
from bonseyes_dagster.pipeline.routes import pipeline_blueprint
from bonseyes_dagster.pipeline.runs import Runs
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.web.app import create_app as create_base_app
from bonseyes_dagster.web.background import start_in_background
from bonseyes_dagster.web.routes import artifact_blueprint

__all__ = ["application", "create_app", "make_runs"]

_log = logging.getLogger(__name__)
_CLEAN_S = 600.0
_RELOAD_POLL_S = 0.5


def make_runs(settings: Settings) -> Runs:
    """Return the runs of the pipeline that the settings name."""
    assert settings.volume is not None  # load_settings has checked it
    project = settings.project or Path.cwd()
    in_home = Path(os.environ["DAGSTER_HOME"]) / WORKSPACE
    workspace = in_home if in_home.is_file() or not (project / WORKSPACE).is_file() else project / WORKSPACE
    pipeline = load_pipeline(project, settings.pipeline)
    return Runs(pipeline, settings, volume=settings.volume, workspace=workspace)


def create_app(runs: Runs, settings: Settings) -> Flask:
    """Return the application that serves the runs of a pipeline."""
    app = create_base_app(
        runs.pipeline.name,
        description=lambda: runs.describe().to_json(),
        check_health=runs.check_health,
        gauges=runs.gauges,
        openapi=lambda: pipeline_document(runs.describe()),
    )
    app.register_blueprint(artifact_blueprint(runs, upload_limit_bytes=settings.upload_limit_bytes))
    app.register_blueprint(pipeline_blueprint(runs))
    return app


def application() -> Flask:
    """Return the application for the settings in the environment; uWSGI calls this once, before it forks."""
    settings = load_settings()
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    runs = make_runs(settings)
    app = create_app(runs, settings)
    name = settings.container or runs.pipeline.name
    start_in_background(name, settings, lambda: _keep_clean(runs), lambda: keep_current(runs, settings))
    return app


def keep_current(runs: Runs, settings: Settings, *, poll_s: float = _RELOAD_POLL_S) -> None:
    """Reload the definitions whenever the code server has reloaded them; if that fails, keep the old definitions."""
    loaded = Path(os.environ["DAGSTER_HOME"]) / LOADED_FILE
    project = settings.project or Path.cwd()
    seen = _time_of(loaded)
    while True:
        time.sleep(poll_s)
        current = _time_of(loaded)
        if current == seen:
            continue
        seen = current
        try:
            runs.serve(reload_pipeline(project, settings.pipeline))
            _log.info("The definitions were reloaded.")
        except Exception:  # anything that the project's code raises; the code server shows it, and launches no run
            _log.warning("The definitions could not be reloaded; the old ones stay in use.", exc_info=True)


def _time_of(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _keep_clean(runs: Runs) -> None:
    while True:
        try:
            runs.clean()
        except Exception:  # the storage may be away for a while; if the thread ended, nothing would clean up again
            _log.warning("Cleaning up failed and will be tried again.", exc_info=True)
        time.sleep(_CLEAN_S)
