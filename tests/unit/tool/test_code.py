"""The watch over a tool's code finds and names every change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bonseyes_dagster.sources import Sources
from bonseyes_dagster.tool.code.packages import Packages
from bonseyes_dagster.tool.code.watch import CodeWatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module, a package and a link."""
    folder = tmp_path / "tool"
    (folder / "package").mkdir(parents=True)
    (folder / "tool.py").write_text("VALUE = 1\n")
    (folder / "package" / "__init__.py").write_text("VALUE = 1\n")
    (tmp_path / "linked.py").write_text("VALUE = 1\n")
    (folder / "linked.py").symlink_to("../linked.py")
    return folder


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder with an installed package."""
    (tmp_path / "site" / "one-1.0.dist-info").mkdir(parents=True)
    return tmp_path / "site"


@pytest.fixture
def watch(folder: Path, packages: Path) -> CodeWatch:
    """Return a watch over both folders."""
    return CodeWatch(Sources.read([folder]), Packages.read([str(packages)]))


def edit(folder: Path) -> None:
    """Write other content of the same size, and set the time back."""
    before = (folder / "tool.py").stat()
    (folder / "tool.py").write_text("VALUE = 2\n")
    os.utime(folder / "tool.py", ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_package(folder: Path) -> None:
    """Replace a package folder by another one."""
    shutil.copytree(folder / "package", folder.parent / "new")
    (folder.parent / "new" / "__init__.py").write_text("VALUE = 2\n")
    (folder / "package").rename(folder.parent / "old")
    (folder.parent / "new").rename(folder / "package")


CHANGES: dict[str, Callable[[Path], object]] = {
    "tool.py": edit,
    "package/__init__.py": replace_package,
    "linked.py": lambda folder: (folder.parent / "linked.py").write_text("VALUE = 2\n"),
    "package/new.py": lambda folder: (folder / "package" / "new.py").touch(),
    "one-1.0.dist-info, one-1.1.dist-info": lambda folder: (folder.parent / "site" / "one-1.0.dist-info").rename(
        folder.parent / "site" / "one-1.1.dist-info"
    ),
}


@pytest.mark.parametrize("names", CHANGES)
def test_change_before_an_artifact_is_named(watch: CodeWatch, folder: Path, names: str) -> None:
    """The sentence names the changed files."""
    assert (watch.begin(), watch.end()) == (None, None)
    CHANGES[names](folder)
    assert names in str(watch.difference())
    assert names in str(watch.begin())


@pytest.mark.parametrize("names", CHANGES)
def test_change_during_an_artifact_is_named(watch: CodeWatch, folder: Path, names: str) -> None:
    """The old or the new code may have run."""
    assert watch.begin() is None
    CHANGES[names](folder)
    assert names in str(watch.end())


def test_edit_and_restore_at_once_is_found(watch: CodeWatch, folder: Path) -> None:
    """No program can set the time of the last change back, and two changes within one clock tick are found."""
    for _ in range(20):
        assert watch.begin() is None
        edit(folder)
        (folder / "tool.py").write_text("VALUE = 1\n")
        assert "tool.py" in str(watch.end())
        assert watch.difference() is None


def test_file_that_was_added_and_removed_is_found(watch: CodeWatch, folder: Path) -> None:
    """The tool may have imported it. A file that came and went before an artifact does no harm."""
    assert watch.begin() is None
    (folder / "passing.py").touch()
    (folder / "passing.py").unlink()
    assert "files that came and went" in str(watch.end())
    (folder / "passing.py").touch()
    (folder / "passing.py").unlink()
    assert (watch.begin(), watch.end()) == (None, None)


def test_caches_and_files_elsewhere_are_no_change(watch: CodeWatch, folder: Path, packages: Path) -> None:
    """Python writes caches, and the folder of packages has other files, too."""
    assert watch.begin() is None
    for path in (folder / "__pycache__", folder / "package" / "__pycache__"):
        path.mkdir()
        (path / "tool.cpython-311.pyc").touch()
    (folder.parent / "elsewhere.py").touch()
    (packages / "notes.txt").touch()
    assert (watch.end(), watch.difference()) == (None, None)
    (folder / "__pycache__" / "tool.cpython-312.pyc").touch()
    assert (watch.end(), watch.difference()) == (None, None)


def test_code_that_changed_during_its_import_stays_a_fault(watch: CodeWatch, folder: Path) -> None:
    """The imported code is in memory, so restoring its file does not help."""
    watch.begin_loading()
    edit(folder)
    (folder / "tool.py").write_text("VALUE = 1\n")
    assert "while it was loaded (tool.py)" in str(watch.end_loading())
    assert "tool.py" in str(watch.begin())


def test_missing_folder_is_a_change(watch: CodeWatch, folder: Path) -> None:
    """The watch reports a missing folder without raising an error, until the folder is back."""
    folder.rename(folder.parent / "away")
    assert "cannot be read" in str(watch.begin())
    assert "cannot be read" in str(watch.difference())
    (folder.parent / "away").rename(folder)
    assert watch.begin() is None


def test_bytecode_that_may_have_other_content_is_removed(folder: Path) -> None:
    """Bytecode from well after the last change of the source stays."""
    (folder / "__pycache__").mkdir()
    compiled = {name: folder / "__pycache__" / f"{name}.cpython-311.pyc" for name in ("tool", "linked", "toolbox")}
    for path in compiled.values():
        path.touch()
    late_ns = (folder.parent / "linked.py").stat().st_ctime_ns + 10_000_000_000
    os.utime(compiled["linked"], ns=(late_ns, late_ns))
    Sources.read([folder]).remove_stale_bytecode()
    assert {name for name, path in compiled.items() if path.exists()} == {"linked", "toolbox"}
