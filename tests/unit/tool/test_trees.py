"""Folders of a tool are removed, with any depth and any permissions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bonseyes_dagster.tool.files.disk import remove, throw_away


def test_deep_folders_are_removed(tmp_path: Path, nest: Callable[..., None]) -> None:
    """The removal goes up to the parent and down again."""
    for side in ("left", "right"):
        (tmp_path / "tree" / side).mkdir(parents=True)
        nest(tmp_path / "tree" / side)
    remove(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """The target of a link does not belong to the folder."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "other")
    remove(tmp_path / "tree")
    remove(tmp_path / "is not there")
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "other/file").read_text() == "x"


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500])
def test_folders_without_permissions_are_removed(tmp_path: Path, mode: int) -> None:
    """A tool may remove its own permissions."""
    (tmp_path / "tree/closed/inner").mkdir(parents=True)
    (tmp_path / "tree/closed/inner/file").write_text("x")
    (tmp_path / "tree/closed").chmod(mode)
    (tmp_path / "trash").mkdir()
    throw_away(tmp_path / "tree", tmp_path / "trash")
    assert not list((tmp_path / "trash").iterdir())
