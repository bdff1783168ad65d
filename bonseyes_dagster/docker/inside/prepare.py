"""Prepare a docker project for Dagster before its processes start; Compose runs each step once at every `up`.

    python -m bonseyes_dagster.docker.inside.prepare secrets    the database's password, before Postgres starts
    python -m bonseyes_dagster.docker.inside.prepare storage    tables, dagster.yaml, workspace.yaml, when it is healthy

Both steps can run again at any time, also while the project is running: they keep existing data, and replace a
changed file in one step. `storage` migrates the tables of an older Dagster.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from bonseyes_dagster.errors import BonseyesError, SettingsError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.storage import sync_folder

__all__ = ["main", "make_password", "prepare_storage"]

_CODE_SERVER = "code-server.dagster:4000"
# The run server has memory, and Postgres connections, for this many runs (docker-compose.yml).
_MOST_RUNS = 200


def make_password(file: Path) -> bool:
    """Make the database's password unless it exists; tell whether it is new.

    Every user may read the file, because Postgres runs as another user. No other service mounts the volume.
    """
    if file.exists():
        return False
    draft = file.with_name(f".{file.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as new:
        new.write(secrets.token_urlsafe(32))
        os.fchmod(new.fileno(), 0o444)
        new.flush()
        os.fsync(new.fileno())
    try:
        with contextlib.suppress(FileExistsError):  # keep another process's password: Postgres may have read it
            file.hardlink_to(draft)
            return True
        return False
    finally:
        draft.unlink()
        sync_folder(file.parent)


def prepare_storage(home: Path, settings: Settings, *, code_server: str = _CODE_SERVER) -> None:
    """Write the files that every Dagster process reads at its start, and bring the storage up to date."""
    # These modules import Dagster, which takes seconds, and the other step does not need them.
    from bonseyes_dagster.execution.containers.run_container import launcher_config
    from bonseyes_dagster.execution.storage.instance import write_instance, write_workspace
    from bonseyes_dagster.execution.storage.instance_settings import check_values
    from bonseyes_dagster.execution.storage.migration import bring_up_to_date

    host, _, port = code_server.rpartition(":")
    postgres = _database_url(settings)
    project = settings.project or Path.cwd()
    check_values(project)
    options: dict[str, Any] = {
        "launcher": settings.run_launcher,
        "postgres": postgres,
        "max_runs": _MOST_RUNS,
        "project": project,
    }
    if settings.run_launcher == "docker":
        if not settings.compose_project:
            raise SettingsError("BONSEYES_COMPOSE_PROJECT must name the Compose project when runs are containers.")
        options["launcher_config"] = launcher_config(settings, os.environ)
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        write_workspace(home, host=host, port=int(port))
        write_instance(home, **options)
        bring_up_to_date(home, postgres=postgres)


def _database_url(settings: Settings) -> str | None:
    """Return the database's URL, with its password."""
    if not settings.postgres:
        return None
    parts = urlsplit(settings.postgres)
    if parts.scheme not in ("postgres", "postgresql") or not parts.hostname or not parts.username:
        raise SettingsError("BONSEYES_POSTGRES must be like postgresql://USER@HOST/DATABASE.")
    file = settings.postgres_password_file
    if file is None:
        return settings.postgres
    try:
        password = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"BONSEYES_POSTGRES_PASSWORD_FILE={file} cannot be read: {error.strerror}.") from error
    address = parts.netloc.rpartition("@")[2]
    netloc = f"{quote(parts.username)}:{quote(password, safe='')}@{address}"
    return urlunsplit(("postgresql", netloc, parts.path, parts.query, ""))


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let only one process at a time make or migrate tables: two would disturb each other."""
    descriptor = os.open(home / ".prepare.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.docker.inside.prepare", description=__doc__)
    parser.add_argument("step", choices=["secrets", "storage"])
    parser.add_argument("--code-server", default=_CODE_SERVER, help="HOST:PORT of the code server (%(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings = Settings.from_environ()
        if arguments.step == "secrets":
            if settings.postgres_password_file is None:
                raise SettingsError("BONSEYES_POSTGRES_PASSWORD_FILE must be the path of the password's file.")
            is_new = make_password(settings.postgres_password_file)
            print("The database has a new password." if is_new else "The database has its password already.")
        else:
            prepare_storage(_home(), settings, code_server=arguments.code_server)
    except BonseyesError as error:
        sys.exit(f"bonseyes_dagster.docker.inside.prepare: {error.message}")


def _home() -> Path:
    home = os.environ.get("DAGSTER_HOME", "")
    if not Path(home).is_absolute():
        raise SettingsError("DAGSTER_HOME must be the absolute path of the folder of Dagster's instance.")
    return Path(home)


if __name__ == "__main__":
    main()
