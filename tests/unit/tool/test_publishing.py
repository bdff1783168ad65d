"""The output of a tool becomes an artifact, or an error tells why it cannot."""

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
    """Return the folder of an artifact, with an empty staging folder."""
    made = Folder(tmp_path / "0123")
    made.staging.mkdir(parents=True)
    return made


def never() -> None:
    """Check that never stops the publication."""


def test_manifest_lists_all_files(folder: Folder) -> None:
    """Paths are sorted and have forward slashes. Empty folders are not listed."""
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


def test_empty_staging_is_published(folder: Folder) -> None:
    """A tool that writes no file is completed."""
    assert publish(folder, never).files == ()


def test_stopped_publication_publishes_nothing(folder: Folder) -> None:
    """The check raises StoppedError when a client cancels the artifact."""
    (folder.staging / "file").write_text("x")

    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        publish(folder, stop)
    assert not folder.data.exists()


@pytest.mark.parametrize("name", ["back\\slash", "new\nline", "tab\t"])
def test_names_with_special_characters_are_refused(folder: Folder, name: str) -> None:
    """Zips, headers or other systems would misread them."""
    (folder.staging / name).write_text("x")
    with pytest.raises(ToolError, match="name"):
        publish(folder, never)


def test_too_deep_folders_are_refused(folder: Folder, nest: Callable[..., None]) -> None:
    """The message tells the limit."""
    nest(folder.staging, 101)
    with pytest.raises(ToolError, match="more than 100 folders deep"):
        publish(folder, never)


def test_deepest_folders_and_longest_path_are_published(folder: Folder, nest: Callable[..., None]) -> None:
    """The limits themselves are allowed."""
    nest(folder.staging, 100, "x" * 9)
    (folder.staging / ("y" * 255) / ("y" * 255) / ("y" * 255)).mkdir(parents=True)
    (folder.staging / ("y" * 255) / ("y" * 255) / ("y" * 255) / ("y" * 255)).write_text("x")
    longest = max(len(entry.path) for entry in publish(folder, never).files)
    assert longest == 1023


def test_too_long_path_is_refused(folder: Folder, nest: Callable[..., None]) -> None:
    """A path must fit into a URL."""
    nest(folder.staging, 5, "x" * 250)
    with pytest.raises(ToolError, match="path of more than 1024 bytes"):
        publish(folder, never)


def test_too_many_files_are_refused(folder: Folder) -> None:
    """The message names the setting."""
    for number in range(3):
        (folder.staging / str(number)).mkdir()
        (folder.staging / str(number) / "file").write_text("x")
    with pytest.raises(ToolError, match=r"more than 5 files and folders.*BONSEYES_FILES_LIMIT"):
        publish(folder, never, files_limit=5)
    assert len(publish(folder, never, files_limit=6).files) == 3


def test_links_to_files_of_the_artifact_become_files(folder: Folder) -> None:
    """Also a link to a link. A hard link inside the artifact stays one file."""
    (folder.staging / "file").write_text("x")
    (folder.staging / "one").symlink_to("file")
    (folder.staging / "two").symlink_to("one")
    (folder.staging / "hard").hardlink_to(folder.staging / "file")
    manifest = publish(folder, never)
    assert {entry.path for entry in manifest.files} == {"file", "one", "two", "hard"}
    assert len({entry.sha256 for entry in manifest.files}) == 1
    assert (folder.data / "hard").stat().st_ino == (folder.data / "file").stat().st_ino


def test_absolute_link_to_a_file_of_the_artifact_becomes_a_file(folder: Folder) -> None:
    """Only the target of a link matters."""
    (folder.staging / "file").write_text("x")
    (folder.staging / "link").symlink_to(folder.staging / "file")
    publish(folder, never)
    assert (folder.data / "link").read_text() == "x"


def test_re_used_artifact_has_the_files_of_its_source(folder: Folder, tmp_path: Path) -> None:
    """It also has the log and the metrics, and it outlives its source."""
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
def test_re_use_of_an_artifact_that_is_being_deleted_fails(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """At any moment of the deletion. No links to appendable files of the source stay."""
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
