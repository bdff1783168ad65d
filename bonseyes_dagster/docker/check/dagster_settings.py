"""Check the project's own `dagster.yaml`: the keys in this process, the values with Dagster in a child process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from bonseyes_dagster.docker.check.finding import Finding
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.execution.storage.instance_settings import SETTINGS_FILE, check_values, read_settings

__all__ = ["check_settings"]

_TIMEOUT_S = 120.0


def check_settings(folder: Path) -> list[Finding]:
    """Return the findings about `dagster.yaml`; without Dagster, only about its keys."""
    try:
        settings = read_settings(folder)
    except SettingsError as error:
        return [_wrong(folder, error.message)]
    if not settings or importlib.util.find_spec("dagster") is None:
        return []
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, str(folder)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return [_wrong(folder, done.stderr.strip())] if done.returncode else []


def _wrong(folder: Path, message: str) -> Finding:
    return Finding(
        rule="dagster_settings",
        file=Path(SETTINGS_FILE),
        problem=message.replace(str(folder / SETTINGS_FILE), "").lstrip(": "),
        remedy="docs/operations.md lists the settings.",
    )


def main(folder: str) -> None:
    """Print the error of the values to standard error."""
    try:
        check_values(Path(folder))
    except SettingsError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main(sys.argv[1])
