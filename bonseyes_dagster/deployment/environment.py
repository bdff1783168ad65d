"""What compose files get their variables from: the environment, and below it the project's `.env`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from bonseyes_dagster.errors import SettingsError

__all__ = ["compose_environ"]


def compose_environ(project: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return `environ` (this process's own by default), and what `.env` in the project's folder sets beside it."""
    file = project / ".env"
    try:
        in_file = {name: value for name, value in dotenv_values(file).items() if value is not None}
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error
    return {**in_file, **(os.environ if environ is None else environ)}
