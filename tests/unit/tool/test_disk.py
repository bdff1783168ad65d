"""A private folder in a place where every user may make folders."""

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


def test_private_folder_is_new_and_empty(tmp_path: Path) -> None:
    """The files of an earlier worker are removed."""
    folder = tmp_path / "bonseyes-1"
    folder.mkdir(mode=0o755)
    (folder / "random.py").touch()
    make_private(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == []


def test_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    """It would lead a tool into a folder that another user has chosen."""
    target, link = tmp_path / "target", tmp_path / "bonseyes-1"
    target.mkdir()
    (target / "file").touch()
    link.symlink_to(target)
    with pytest.raises(ToolError, match="not a folder of this user"):
        make_private(link)
    assert (target / "file").exists()


@needs_root
def test_folder_of_another_user_is_neither_used_nor_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other user could put modules and links into it."""
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
