"""The history reads well in one line each."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.skipif(not shutil.which("git") or not (PROJECT / ".git").exists(), reason="there is no history here")
def test_commit_subjects_have_at_most_72_characters() -> None:
    """Longer subjects are cut off in the lists of most tools."""
    log = ["git", "-C", PROJECT, "-c", f"safe.directory={PROJECT}", "log", "-n", "50", "--no-merges", "--format=%s"]
    subjects = subprocess.run(log, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [subject for subject in subjects if len(subject) > 72 or subject.endswith(".")] == []
