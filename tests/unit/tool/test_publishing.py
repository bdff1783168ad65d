"""What a tool wrote becomes an artifact, or a reason why it cannot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.tool.artifacts import reuse
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.artifacts.publishing import StoppedError, publish, read_manifest
from bonseyes_dagster.tool.artifacts.reuse import adopt
from bonseyes_dagster.tool.files.disk import throw_away


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An artifact with an empty staging folder."""
    made = Folder(tmp_path / "0123")
    made.staging.mkdir(parents=True)
    return made


def never() -> None:
    """Go on."""


def test_the_manifest_is_of_all_files(folder: Folder) -> None:
    """Paths are sorted and have forward slashes; empty folders are nothing."""
    for path in ("b", "a/z", "a/y/x"):
        (folder.staging / path).parent.mkdir(parents=True, exist_ok=True)
        (folder.staging / path).write_text(path)
    (folder.staging / "empty").mkdir()
    manifest = publish(folder, never)
    assert [entry.path for entry in manifest.files] == ["a/y/x", "a/z", "b"]
    assert manifest.files[2].sha256 == hashlib.sha256(b"b").hexdigest()
    assert read_manifest(folder) == manifest
    assert not folder.staging.exists()
    assert (folder.data / "a/z").read_text() == "a/z"


def test_nothing_is_an_artifact_too(folder: Folder) -> None:
    """A tool that writes nothing is completed."""
    assert publish(folder, never).files == ()


def test_stopping(folder: Folder) -> None:
    """Publication gives up when told to, and nothing is published."""
    (folder.staging / "file").write_text("x")

    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        publish(folder, stop)
    assert not folder.data.exists()


@pytest.mark.parametrize("name", ["back\\slash", "new\nline", "tab\t"])
def test_names_that_cannot_travel(folder: Folder, name: str) -> None:
    """Names that zips, headers or other systems misread are refused."""
    (folder.staging / name).write_text("x")
    with pytest.raises(ToolError, match="name"):
        publish(folder, never)


def test_folders_that_are_too_deep_are_refused(folder: Folder, nest: Callable[..., None]) -> None:
    """The tool's author learns the limit."""
    nest(folder.staging, 101)
    with pytest.raises(ToolError, match="more than 100 folders deep"):
        publish(folder, never)


def test_the_deepest_folders_and_the_longest_path_are_published(folder: Folder, nest: Callable[..., None]) -> None:
    """The limits themselves are allowed."""
    nest(folder.staging, 100, "x" * 9)
    (folder.staging / ("y" * 255) / ("y" * 255) / ("y" * 255)).mkdir(parents=True)
    (folder.staging / ("y" * 255) / ("y" * 255) / ("y" * 255) / ("y" * 255)).write_text("x")
    longest = max(len(entry.path) for entry in publish(folder, never).files)
    assert longest == 1023


def test_paths_that_are_too_long_are_refused(folder: Folder, nest: Callable[..., None]) -> None:
    """A path has to fit into a URL."""
    nest(folder.staging, 5, "x" * 250)
    with pytest.raises(ToolError, match="path of more than 1024 bytes"):
        publish(folder, never)


def test_too_many_files_are_refused(folder: Folder) -> None:
    """The sentence names the setting."""
    for number in range(3):
        (folder.staging / str(number)).mkdir()
        (folder.staging / str(number) / "file").write_text("x")
    with pytest.raises(ToolError, match=r"more than 5 files and folders.*BONSEYES_FILES_LIMIT"):
        publish(folder, never, files_limit=5)
    assert len(publish(folder, never, files_limit=6).files) == 3


def test_links_among_themselves(folder: Folder) -> None:
    """A link to a link to a file is that file; a hard link inside stays one file."""
    (folder.staging / "file").write_text("x")
    (folder.staging / "one").symlink_to("file")
    (folder.staging / "two").symlink_to("one")
    (folder.staging / "hard").hardlink_to(folder.staging / "file")
    manifest = publish(folder, never)
    assert {entry.path for entry in manifest.files} == {"file", "one", "two", "hard"}
    assert len({entry.sha256 for entry in manifest.files}) == 1
    assert (folder.data / "hard").stat().st_ino == (folder.data / "file").stat().st_ino


def test_an_absolute_link_to_the_inside(folder: Folder) -> None:
    """How a link is written does not matter, only where it leads."""
    (folder.staging / "file").write_text("x")
    (folder.staging / "link").symlink_to(folder.staging / "file")
    publish(folder, never)
    assert (folder.data / "link").read_text() == "x"


def test_adopting(folder: Folder, tmp_path: Path) -> None:
    """A reused artifact has the same files, log and metrics, and outlives its source."""
    (folder.staging / "a").mkdir()
    (folder.staging / "a/file").write_text("x")
    folder.log.write_text("log")
    folder.metrics.mkdir()
    (folder.metrics / "loss").write_text("1 1 1\n")
    manifest = publish(folder, never)
    target = Folder(tmp_path / "4567")
    target.path.mkdir()
    adopt(folder, target)
    assert (target.data / "a/file").stat().st_ino == (folder.data / "a/file").stat().st_ino
    assert read_manifest(target) == manifest
    assert (target.log.read_text(), (target.metrics / "loss").read_text()) == ("log", "1 1 1\n")
    with pytest.raises(FileNotFoundError):
        adopt(Folder(tmp_path / "gone"), Folder(tmp_path / "4567/other"))


@pytest.mark.parametrize("last", ["manifest.json", "log", "progress.json", "loss"])
def test_adopting_what_is_being_deleted(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Whatever was linked before the source was deleted: it is told, and nothing to append to is another's."""
    folder.log.write_text("log")
    folder.progress.write_text("{}")
    folder.metrics.mkdir()
    (folder.metrics / "loss").write_text("1 1 1\n")
    publish(folder, never)
    trash = tmp_path / "trash"
    trash.mkdir()
    other, target = Folder(tmp_path / "4567"), Folder(tmp_path / "89ab")
    other.path.mkdir()
    target.path.mkdir()
    adopt(folder, other)
    link = reuse.link
    link_tree = reuse.link_tree

    def link_and_delete(source: Path, place: Path) -> None:
        link(source, place)
        if source.name == last:
            throw_away(folder.path, trash)

    def link_tree_and_delete(source: Path, place: Path) -> None:
        link_tree(source, place)
        if (source / last).exists():
            throw_away(folder.path, trash)

    monkeypatch.setattr(reuse, "link", link_and_delete)
    monkeypatch.setattr(reuse, "link_tree", link_tree_and_delete)
    with pytest.raises(FileNotFoundError):
        adopt(folder, target)
    assert not [path for path in (target.log, target.progress, target.metrics) if path.exists()]
    assert (other.log.read_text(), (other.metrics / "loss").read_text()) == ("log", "1 1 1\n")
