"""Creates Dagster's tables, or migrates the tables of an older Dagster, before any process of Dagster starts.

One process does this before all others. Two processes that create SQLite's files at the same time damage them.
"""

import logging
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from dagster import DagsterInstance
from dagster_postgres.run_storage import run_storage
from dagster_postgres.utils import DagsterPostgresException, pg_alembic_config

from bonseyes_dagster.errors import SettingsError, UnavailableError
from bonseyes_dagster.execution.storage.dagster_internals import InstanceRef
from bonseyes_dagster.execution.storage.instance import instance_config

__all__ = ["bring_up_to_date"]

logger = logging.getLogger(__name__)


def bring_up_to_date(home: Path, *, postgres: str | None = None, must_upgrade: bool = False) -> None:
    """Create the tables, or migrate those of an older Dagster.

    Without `must_upgrade`, only the version of the runs' tables decides whether a migration is needed.
    Raises UnavailableError if the database does not answer. Raises SettingsError if a newer Dagster has migrated the
    tables, because this version could damage them.
    """
    storage: dict[str, Any] = instance_config(home, postgres=postgres)["storage"]
    if postgres:
        storage["custom"]["config"]["should_autocreate_tables"] = True
    try:
        with DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides={"storage": storage})) as instance:
            _create_files(instance)
            if must_upgrade or _is_behind(instance):
                logger.info("Migrating the tables of Dagster's storage.")
                instance.upgrade(lambda line: logger.info(line))
    except (DagsterPostgresException, UnavailableError) as error:
        raise UnavailableError(_sentence(error)) from error


def _create_files(instance: DagsterInstance) -> None:
    """Make SQLite's storages create their files; Postgres' storages have created their tables already."""
    instance.get_run_ids(limit=1)
    instance.all_asset_keys()
    instance.all_instigator_state()


def _is_behind(instance: DagsterInstance) -> bool:
    runs: Any = instance.run_storage
    present, newest = runs.alembic_version()
    if present == newest:
        return False
    try:
        if present is not None and hasattr(runs, "postgres_url"):
            ScriptDirectory.from_config(pg_alembic_config(run_storage.__file__)).get_revision(present)
    except CommandError as error:
        raise SettingsError(
            "A newer Dagster has migrated the storage: use its version of the images, or restore a backup."
        ) from error
    return True


def _sentence(error: Exception) -> str:
    cause = getattr(error.__cause__, "orig", None) or error.__cause__ or error
    text = f"The database of Dagster's runs does not answer: {str(cause).strip().partition(chr(10))[0]}"
    if "password authentication failed" in text:
        text += "; its volume was made with another password than the one in the volume `secrets`"
    return f"{text}."
