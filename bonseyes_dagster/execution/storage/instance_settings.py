"""The project's own `dagster.yaml`, beside `definitions.py`: its settings for Dagster's instance.

`instance.py` merges it over the configuration that the project needs. Only `check_values` imports Dagster.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.formats.yaml_file import read_yaml

__all__ = ["SETTINGS_FILE", "check_values", "merge_settings", "read_settings"]

SETTINGS_FILE = "dagster.yaml"

_ALLOWED = (
    "auto_materialize",
    "backfills",
    "code_servers",
    "concurrency",
    "freshness",
    "nux",
    "python_logs",
    "retention",
    "run_monitoring",
    "run_queue",
    "run_retries",
    "schedules",
    "sensors",
    "telemetry",
)
_STORAGE = "the project keeps runs and events itself; BONSEYES_POSTGRES chooses a database"
_REFUSED = {
    "storage": _STORAGE,
    "run_storage": _STORAGE,
    "event_log_storage": _STORAGE,
    "schedule_storage": _STORAGE,
    "local_artifact_storage": _STORAGE,
    "compute_logs": "the steps of a run share a process, and only the project's own class tells their output apart",
    "run_coordinator": "runs get their names there; set concurrency.runs or run_queue instead",
    "run_launcher": "the project starts runs itself; BONSEYES_RUN_LAUNCHER chooses how",
    "instance_class": "the project relies on Dagster's own",
    "scheduler": "the project relies on Dagster's own",
}


def read_settings(project: Path) -> dict[str, Any]:
    """Return the settings in a project's `dagster.yaml`, or {}; raise SettingsError that names a wrong key."""
    file = project / SETTINGS_FILE
    try:
        found = read_yaml(file)
    except FileNotFoundError:
        return {}
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError(f"{file} must map Dagster's settings to values; it holds a {type(found).__name__}.")
    for key, value in found.items():
        _check_key(file, str(key), value)
    return found


def _check_key(file: Path, key: str, value: object) -> None:
    if key in _REFUSED:
        raise SettingsError(f"{file}: {key} cannot be set here: {_REFUSED[key]}.")
    if key not in _ALLOWED:
        raise SettingsError(f"{file}: {key} is not one of {', '.join(_ALLOWED)}.")
    if not isinstance(value, dict):
        raise SettingsError(f"{file}: {key} must map names to values.")


def merge_settings(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return Dagster's configuration, with a project's settings merged over it key by key."""
    settings = dict(settings)
    # Dagster accepts `run_queue` or a custom coordinator, not both. Our coordinator takes the keys of `run_queue`.
    queue = settings.pop("run_queue", {})
    merged = _merge(config, settings)
    if queue:
        merged = _merge(merged, {"run_coordinator": {"config": queue}})
    return merged


def check_values(project: Path) -> None:
    """Check the values in a project's `dagster.yaml` with Dagster; raise SettingsError that names file and key."""
    settings = read_settings(project)
    if not settings:
        return
    # Imported here: the import takes a second, and `read_settings` does not need Dagster.
    from dagster import DagsterInvalidConfigError

    from bonseyes_dagster.execution.storage.dagster_internals import (
        CheckError,
        dagster_instance_config,
        dagster_instance_config_schema,
        validate_config,
    )

    file = project / SETTINGS_FILE
    reasons = [each.message for each in validate_config(dagster_instance_config_schema(), settings).errors or ()]
    if reasons:
        raise SettingsError(f"{file}: {' '.join(' '.join(reasons).split())}")
    _check_limit(file, settings, "concurrency", "runs")
    _check_limit(file, settings, "run_queue")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / SETTINGS_FILE).write_text(yaml.safe_dump(settings), encoding="utf-8")
        try:
            dagster_instance_config(folder)
        except (DagsterInvalidConfigError, CheckError) as error:
            raise SettingsError(f"{file}: {' '.join(str(error).split()).rstrip('.')}.") from error


def _check_limit(file: Path, settings: Mapping[str, Any], *keys: str) -> None:
    found: Any = settings
    for key in (*keys, "max_concurrent_runs"):
        found = found.get(key, {})
    if isinstance(found, int) and found < -1:
        raise SettingsError(
            f"{file}: {'.'.join(keys)}.max_concurrent_runs must be a number of runs, or -1 for no limit."
        )


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        former = merged.get(key)
        merged[key] = _merge(former, value) if isinstance(former, Mapping) and isinstance(value, Mapping) else value
    return merged
