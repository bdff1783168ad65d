"""A tool that cannot be served reports the reason in one sentence, before any process starts."""

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
def test_start_with_a_wrong_setting_exits_with_one_sentence(tool: Path, volume: str, sentence: str) -> None:
    """The volume is not mounted, or the folder holds no tool."""
    command = [sys.executable, "-m", "bonseyes_dagster.tool", "--tool", str(tool), "--volume", volume]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.startswith(f"bonseyes_dagster.tool: {sentence}")
    assert done.stderr.count("\n") == 1
