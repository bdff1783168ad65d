"""What Dagster's own processes take from the project's `.env`; whoever starts one in this process calls it before.

Dagster loads `.env` of the working folder into itself: it lets the file hide the shell, and gives definitions the
settings of all services, the token among them. `bonseyes up` has read those settings already.
"""

import os

__all__ = ["leave_settings_alone"]


def leave_settings_alone() -> None:
    """Let Dagster take from `.env` only variables that are no settings, and are not set already."""
    from bonseyes_dagster.execution.servers.dagster_internals import get_env_var_dict, utils

    def variables(folder: str) -> dict[str, str]:
        found = get_env_var_dict(folder)
        return {
            name: value for name, value in found.items() if not name.startswith("BONSEYES_") and name not in os.environ
        }

    utils.get_env_var_dict = variables  # type: ignore[attr-defined,assignment]
