"""Load the pipelines of definitions.py in a child process: `python -m bonseyes_dagster.docker.check.pipelines FOLDER`.

Loading definitions runs the project's code and imports Dagster. Neither may stay in the checking process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bonseyes_dagster.docker.check.finding import Finding
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.environment import chosen_environ
from bonseyes_dagster.settings import Settings

__all__ = ["DEFINITIONS", "ask_pipelines"]

DEFINITIONS = "definitions.py"
_TIMEOUT_S = 120.0


def ask_pipelines(folder: Path) -> tuple[Mapping[str, tuple[str, ...]] | None, str | None, list[Finding]]:
    """Return the containers of each pipeline by its name, or None with a reason or with findings."""
    if not (folder / DEFINITIONS).exists():
        return None, f"there is no {DEFINITIONS}", []
    if importlib.util.find_spec("dagster") is None:
        return None, "Dagster is not installed (run `pip install 'bonseyes-dagster[pipeline]'`)", []
    chosen = chosen_environ(os.environ, Settings.from_environ().pass_env)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, str(folder)],
            cwd=folder,
            env={**chosen, "BONSEYES_PROJECT": str(folder)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, None, [_wrong(f"the import did not end within {_TIMEOUT_S:.0f} s.")]
    if done.returncode != 0:
        return None, None, [_wrong((done.stderr.strip().splitlines() or ["it ended its process."])[-1])]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: tuple(containers) for name, containers in found.items()}, None, []


def _wrong(problem: str) -> Finding:
    return Finding(
        rule="definitions_load",
        file=Path(DEFINITIONS),
        problem=f"It cannot be loaded: {problem}",
        remedy="The pipelines could not be checked.",
    )


def main(folder: str) -> None:
    """Print the pipelines of the project in `folder` as JSON."""
    from bonseyes_dagster.orchestration.project import load_pipelines  # it imports Dagster

    try:
        pipelines = load_pipelines(Path(folder))
    except SettingsError as error:
        sys.exit(error.message.replace(f"{folder}/", "").removeprefix(f"{DEFINITIONS} cannot be loaded: "))
    sys.stdout.write(f"\n{json.dumps({name: each.containers for name, each in pipelines.items()})}\n")


if __name__ == "__main__":
    main(sys.argv[1])
