"""Prepare Dagster for a start: make its storage, and load the names of the pipelines.

Two processes that make Dagster's SQLite files at the same time damage them, so one process makes them first. To load
the definitions takes two seconds: the names are cached as long as no source file changes.
`python -m bonseyes_dagster.embedded.preparation FOLDER` does both.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.execution.storage.instance_settings import SETTINGS_FILE, check_values
from bonseyes_dagster.project.environment import chosen_environ
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.state import write_json
from bonseyes_dagster.version import __version__

__all__ = ["cached_pipelines", "prepare"]

_TIMEOUT_S = 120.0
# The exit status for a wrong `dagster.yaml`; definitions that cannot be loaded have another one.
_WRONG_SETTINGS = 3


def cached_pipelines(project: Project) -> list[str] | None:
    """Return the cached names of the pipelines; None when a source file has changed since."""
    if not project.definitions.exists():
        return []
    if _storage_version(project) != version("dagster"):
        return None
    try:
        known = json.loads(project.pipelines.read_bytes())
        return list(known["names"]) if known["sources"] == _digest(project) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def prepare(project: Project, passed: Iterable[str] = ()) -> list[str]:
    """Make the storage and load the names of the pipelines, in a child process.

    `passed` are the names in BONSEYES_PASS_ENV, which the definitions may need.

    Raises SettingsError when the definitions cannot be loaded, or `dagster.yaml` is wrong.
    """
    digest = _digest(project)
    made_by = _storage_version(project)
    if made_by != version("dagster"):
        project.storage_made.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        __name__,
        str(project.folder),
        made_by,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=project.folder,
        env={**chosen_environ(os.environ, passed), "DAGSTER_HOME": str(project.dagster_home)},
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == _WRONG_SETTINGS:
        raise SettingsError(err.decode(errors="replace").strip())
    if process.returncode:
        raise SettingsError(err.decode(errors="replace").strip() or f"{project.definitions} ended its process.")
    names = list(json.loads(out.splitlines()[-1]))
    write_json(project.pipelines, {"sources": digest, "names": names})
    return names


def _storage_version(project: Project) -> str:
    """Return the version of Dagster that made or last migrated the storage; an empty text without a storage."""
    try:
        return project.storage_made.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _digest(project: Project) -> str:
    digest = hashlib.sha256(__version__.encode())
    for file in (*project.sources(), *project.folder.glob(SETTINGS_FILE)):
        digest.update(f"\0{file}\0".encode(errors="surrogateescape"))
        digest.update(file.read_bytes())
    return digest.hexdigest()


def main(folder: str, made_by: str) -> None:
    """Make the storage, write the file `storage-made`, and print the names of the pipelines."""
    from bonseyes_dagster.orchestration.project import load_pipelines  # it imports Dagster

    project = Project(Path(folder))
    try:
        check_values(project.folder)
    except SettingsError as error:
        sys.stderr.write(error.message)
        sys.exit(_WRONG_SETTINGS)
    if made_by != version("dagster"):
        _make_storage(project, is_old=bool(made_by))
        project.storage_made.write_text(version("dagster"), encoding="utf-8")
    try:
        names = sorted(load_pipelines(project.folder))
    except SettingsError as error:
        sys.exit(error.message)
    sys.stdout.write(f"\n{json.dumps(names)}\n")


def _make_storage(project: Project, *, is_old: bool) -> None:
    from bonseyes_dagster.execution.storage.migration import bring_up_to_date

    bring_up_to_date(project.dagster_home, must_upgrade=is_old)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
