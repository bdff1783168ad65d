"""Limits the variables that Dagster's own processes load from the project's `.env`.

A process that starts Dagster calls `leave_settings_alone` first. Dagster loads `.env` of the working folder into its
environment. There the file would override the shell, and the definitions would see the settings of all services, also
the token. `bonseyes up` has read those settings already.
"""

import os

__all__ = ["leave_settings_alone"]


def leave_settings_alone() -> None:
    """Let Dagster load only variables from `.env` that are not settings, and that are not set already."""
    from bonseyes_dagster.execution.servers.dagster_internals import get_env_var_dict, utils

    def variables(folder: str) -> dict[str, str]:
        found = get_env_var_dict(folder)
        return {
            name: value for name, value in found.items() if not name.startswith("BONSEYES_") and name not in os.environ
        }

    utils.get_env_var_dict = variables  # type: ignore[attr-defined,assignment]
