"""Each commit of the history has a subject that fits in one line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.skipif(not shutil.which("git") or not (PROJECT / ".git").exists(), reason="there is no history here")
def test_commit_subjects_have_at_most_72_characters() -> None:
    """Most tools cut longer subjects in their lists."""
    log = ["git", "-C", PROJECT, "-c", f"safe.directory={PROJECT}", "log", "-n", "50", "--no-merges", "--format=%s"]
    subjects = subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [subject for subject in subjects if len(subject) > 72 or subject.endswith(".")] == []
