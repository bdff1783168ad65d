"""The module that uWSGI loads: the application of the pipeline that the environment names."""

from __future__ import annotations

import sys

import bonseyes_dagster.system.absolute_path  # noqa: F401 - before all others
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.pipeline.app import application as make_application

try:
    application = make_application()
except SettingsError as error:
    # With an exception, uWSGI would print a traceback that is mostly its own code.
    sys.exit(error.message)
