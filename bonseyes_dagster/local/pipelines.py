"""The names of a project's pipelines: remembered as long as no source file changes, else asked of the definitions.

`python -m bonseyes_dagster.local.pipelines FOLDER` prints them; loading Dagster for that costs two seconds, so a start
of the project pays them only after a change, and in another process beside the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path

import bonseyes_dagster
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.local.project import Project
from bonseyes_dagster.local.record import write_json

__all__ = ["discover", "remembered"]

_TIMEOUT_S = 120.0


def remembered(project: Project) -> list[str] | None:
    """Return the names as last asked, or None when a source has changed since."""
    if not project.definitions.exists():
        return []
    try:
        known = json.loads(project.pipelines.read_bytes())
        return list(known["names"]) if known["sources"] == _digest(project) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def discover(project: Project) -> list[str]:
    """Ask the definitions, in a process of their own; raise SettingsError when they cannot be loaded."""
    digest = _digest(project)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        str(project.folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=project.folder,
        env={**os.environ, "DAGSTER_HOME": str(project.dagster_home)},
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise SettingsError(f"{project.definitions} cannot be loaded:\n{err.decode(errors='replace').strip()}")
    names = list(json.loads(out.splitlines()[-1]))
    write_json(project.pipelines, {"sources": digest, "names": names})
    return names


def _digest(project: Project) -> str:
    digest = hashlib.sha256(bonseyes_dagster.__version__.encode())
    for file in project.sources():
        digest.update(f"\0{file}\0".encode(errors="surrogateescape"))
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _print_names(folder: str) -> None:
    from bonseyes_dagster.orchestration.project import load_pipelines  # here: it imports Dagster

    try:
        names = sorted(load_pipelines(Path(folder)))
    except SettingsError as error:
        sys.exit(error.message)
    sys.stdout.write(f"\n{json.dumps(names)}\n")


if __name__ == "__main__":
    _print_names(sys.argv[1])
