"""A tool that cannot be served says why, in one sentence and before anything runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORT = Path(__file__).parents[3] / "containers" / "import"


@pytest.mark.parametrize(
    ("tool", "volume", "sentence"),
    [
        (IMPORT, "/proc/none", "BONSEYES_VOLUME: artifacts cannot be kept in /proc/none: "),
        (IMPORT.parent, "/proc/none", f"The folder {IMPORT.parent} has no tool.yml."),
    ],
)
def test_what_is_wrong_is_told(tool: Path, volume: str, sentence: str) -> None:
    """A volume that was not mounted, and a folder that is no tool."""
    command = [sys.executable, "-m", "bonseyes_dagster.tool", "--tool", str(tool), "--volume", volume]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.startswith(f"bonseyes_dagster.tool: {sentence}")
    assert done.stderr.count("\n") == 1
