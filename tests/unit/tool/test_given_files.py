"""A tool that changes an input file fails; a tool may read, link or move it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.tool.files.given_files import GivenFiles


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a read-only file with a second hard link, like a linked published file."""
    file = tmp_path / "file"
    file.write_bytes(b"published")
    os.utime(file, (1, 1))
    file.chmod(0o444)
    (tmp_path / "published").hardlink_to(file)
    return file


def overwrite(file: Path) -> None:
    """Write other content of the same size."""
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(b"PUBLISHED")


def replace(file: Path) -> None:
    """Replace the file by another one."""
    other = file.with_name("other")
    other.write_bytes(b"published")
    other.replace(file)


@pytest.mark.parametrize("change", [overwrite, replace])
def test_changed_input_is_named(file: Path, change: Callable[[Path], None]) -> None:
    """Also if the size is the same, and if the tool has changed the permissions."""
    given = GivenFiles(file.with_name("given.jsonl"))
    given.add(file, "'images'")
    given.check()
    change(file)
    with pytest.raises(ToolError, match="The tool changed its input 'images'"):
        given.check()


@pytest.mark.parametrize(
    "act",
    [Path.read_bytes, Path.unlink, lambda file: file.rename(file.with_name("moved")), lambda file: file.chmod(0o600)],
)
def test_actions_that_keep_the_content_are_allowed(file: Path, act: Callable[[Path], object]) -> None:
    """Others may link to a published file at any time, and a tool may move its upload to the outputs."""
    given = GivenFiles(file.with_name("given.jsonl"))
    given.check()
    given.add(file, "'images'")
    file.with_name("third").hardlink_to(file)
    act(file)
    given.check()
