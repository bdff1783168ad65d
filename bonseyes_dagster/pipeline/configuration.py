"""Reads and checks the settings of a pipeline container, without importing Dagster: wrong settings fail fast."""

from __future__ import annotations

import os
from pathlib import Path

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.settings import Settings

__all__ = ["load_settings"]


def load_settings() -> Settings:
    """Return the settings from the environment; raise SettingsError if a pipeline container lacks one."""
    settings = Settings.from_environ()
    if not settings.pipeline:
        raise SettingsError("BONSEYES_PIPELINE must name a pipeline of the project.")
    if settings.volume is None:
        raise SettingsError("BONSEYES_VOLUME must name the folder that keeps the uploads of runs.")
    home = os.environ.get("DAGSTER_HOME", "")
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise SettingsError("DAGSTER_HOME must be the absolute path of the folder of Dagster's instance.")
    return settings
