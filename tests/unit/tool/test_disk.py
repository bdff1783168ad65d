"""A folder of ours in a place where everybody may make one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.files.disk import make_private
from bonseyes_dagster.tool.worker.runner import clear_leftovers
from tests.other_user import NOBODY, needs_root


def test_a_private_folder_is_new(tmp_path: Path) -> None:
    """What an earlier worker left there is gone."""
    folder = tmp_path / "bonseyes-1"
    folder.mkdir(mode=0o755)
    (folder / "random.py").touch()
    make_private(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """It would lead a tool into a folder that somebody else has chosen."""
    target, link = tmp_path / "target", tmp_path / "bonseyes-1"
    target.mkdir()
    (target / "file").touch()
    link.symlink_to(target)
    with pytest.raises(ToolError, match="not a folder of this user"):
        make_private(link)
    assert (target / "file").exists()


@needs_root
def test_a_folder_of_another_user_is_neither_used_nor_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes it first could put modules and links into it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    artifact = Folder(tmp_path / "artifacts" / "1")
    artifact.path.mkdir(parents=True)
    artifact.temporary.mkdir()
    (artifact.temporary / "random.py").touch()
    os.chown(artifact.temporary, NOBODY, NOBODY)
    with pytest.raises(ToolError, match="not a folder of this user"):
        make_private(artifact.temporary)
    clear_leftovers(artifact, is_completed=False)
    assert (artifact.temporary / "random.py").exists()
