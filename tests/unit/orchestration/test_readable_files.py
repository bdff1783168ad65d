"""The files that a run may read by path."""

import os
import threading
from pathlib import Path

import pytest
from dagster import Failure

from bonseyes_dagster.orchestration.steps import readable_files
from bonseyes_dagster.orchestration.steps.readable_files import ReadableFiles
from bonseyes_dagster.settings import Settings

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder with a file, and a secret beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "images.gz").write_bytes(b"images")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def readable(project: Path, **settings: object) -> ReadableFiles:
    """Return what a run of the project may read."""
    return ReadableFiles.from_settings(Settings(project=project, **settings))  # type: ignore[arg-type]


def read(files: ReadableFiles, path: Path) -> bytes:
    """Read a file as a step does."""
    with files.open("images", str(path)) as opened:
        return opened.read()


def test_files_of_the_project_are_readable(project: Path) -> None:
    """This is the default of the setting. The upload has the name of the file."""
    with readable(project).open("images", str(project / "images.gz")) as opened:
        assert opened.read() == b"images"
        assert Path(opened.name).name == "images.gz"


@pytest.mark.parametrize("there", [True, False])
def test_files_elsewhere_are_refused_whether_they_exist_or_not(project: Path, there: bool) -> None:
    """The message names the setting. It does not say whether the file exists."""
    path = project.parent / ("secret" if there else "nothing")
    with pytest.raises(Failure, match=r"outside the folders.*BONSEYES_FILES"):
        read(readable(project), path)


@pytest.mark.parametrize("name", [".env", ".bonseyes/volumes/dashboard/containers.json", ".git/config"])
def test_hidden_files_are_refused(project: Path, name: str) -> None:
    """`.env` has the token of the gateway."""
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_bytes(b"secret")
    with pytest.raises(Failure, match="or hidden there"):
        read(readable(project), project / name)


@pytest.mark.parametrize("path", ["link", "folder/secret", "../secret", "folder/../secret"])
def test_links_and_dots_do_not_lead_to_other_files(project: Path, path: str) -> None:
    """This covers a link to a file, a linked folder, and `..` after a link."""
    (project / "link").symlink_to(project.parent / "secret")
    (project / "folder").symlink_to(project.parent)
    with pytest.raises(Failure, match="BONSEYES_FILES"):
        read(readable(project), Path(f"{project}/{path}"))


def test_a_link_to_an_allowed_file_is_read(project: Path) -> None:
    """What counts is where the file lies."""
    (project.parent / "link").symlink_to(project / "images.gz")
    assert read(readable(project), project.parent / "link") == b"images"


def test_link_that_changes_during_the_check_is_refused(project: Path) -> None:
    """The opened file is checked once more."""
    link, ended = project / "link", threading.Event()

    def change() -> None:
        while not ended.is_set():
            for target in ("images.gz", "../secret"):
                draft = project / "draft"
                draft.symlink_to(target)
                draft.replace(link)

    link.symlink_to("images.gz")
    thread = threading.Thread(target=change)
    thread.start()
    found = set()
    try:
        for _ in range(1500):
            try:
                found.add(read(readable(project), link))
            except Failure:
                found.add(b"refused")
    finally:
        ended.set()
        thread.join()
    assert found == {b"images", b"refused"}


def test_only_regular_files_are_read(project: Path) -> None:
    """A pipe without a writer does not hold the step."""
    os.mkfifo(project / "pipe")
    for name in ("pipe", "nothing"):
        with pytest.raises(Failure, match=r"not a regular file|cannot be read"):
            read(readable(project), project / name)


def test_folders_of_the_setting_and_inboxes_are_readable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting replaces the project's folder. Inboxes of the environment and the definitions are always readable."""
    monkeypatch.setattr(readable_files, "_named_folders", set())
    for name in ("data", "inbox", "other"):
        (project.parent / name).mkdir()
        (project.parent / name / "file").write_bytes(name.encode())
    readable_files.allow_folder(project.parent / "other")
    files = readable(project, files=(project.parent / "data",), inbox=project.parent / "inbox")
    assert [read(files, project.parent / name / "file") for name in ("data", "inbox", "other")] == [
        b"data",
        b"inbox",
        b"other",
    ]
    with pytest.raises(Failure):
        read(files, project / "images.gz")


def test_uploads_are_readable(project: Path) -> None:
    """They are in the pipeline's volume. A user may launch a run again with its config."""
    uploads = project / ".bonseyes" / "volumes" / "digits" / "uploads" / TOKEN
    (uploads / "images").mkdir(parents=True)
    (uploads / "images" / "a.gz").write_bytes(b"uploaded")
    with pytest.raises(Failure):
        read(readable(project), uploads / "images" / "a.gz")
    (uploads / "files.json").write_text("{}")
    assert read(readable(project), uploads / "images" / "a.gz") == b"uploaded"
