"""Files in the volume of another container are linked only if they agree with its manifest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from bonseyes_dagster.model import FileEntry
from bonseyes_dagster.tool.fetching.neighbours import Neighbour

ID = "0123456789abcdef" * 2
CONTENT = b"published"


def entry(path: str = "a/file", content: bytes = CONTENT) -> FileEntry:
    """Return the entry of a file in the manifest."""
    return FileEntry(path, len(content), hashlib.sha256(content).hexdigest())


def publish(volumes: Path, content: bytes = CONTENT) -> Path:
    """Publish a file in the volume of the container `maker`."""
    file = volumes / "maker/artifacts" / ID / "data/a/file"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    file.chmod(0o444)
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path for the input; its folder exists."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine/file"


def refuses(volumes: Path, target: Path, wanted: FileEntry, container: str = "maker", artifact_id: object = ID) -> bool:
    """Tell whether the file was not linked, and no temporary file is left."""
    return not Neighbour(volumes, container, artifact_id).link(wanted, target) and not [*target.parent.iterdir()]


def test_published_file_is_linked(tmp_path: Path, target: Path) -> None:
    """It is the same file, and it stays if the other container deletes its own link."""
    source = publish(tmp_path / "volumes")
    assert Neighbour(tmp_path / "volumes", "maker", ID).link(entry(), target)
    assert [*target.parent.iterdir()] == [target]
    assert target.samefile(source)
    source.unlink()
    assert target.read_bytes() == CONTENT


def test_volume_may_be_a_symbolic_link(tmp_path: Path, target: Path) -> None:
    """Symbolic links can gather the volumes of several containers in one folder."""
    publish(tmp_path / "far")
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/maker").symlink_to(tmp_path / "far/maker")
    assert Neighbour(tmp_path / "volumes", "maker", ID).link(entry(), target)


def test_file_that_differs_from_its_manifest_is_refused(tmp_path: Path, target: Path) -> None:
    """It has another digest or size, or is writable."""
    volumes = tmp_path / "volumes"
    source = publish(volumes)
    assert refuses(volumes, target, entry(content=b"PUBLISHED"))
    assert refuses(volumes, target, entry(content=b"shorter"))
    source.chmod(0o644)
    assert refuses(volumes, target, entry())


def test_missing_file_is_refused(tmp_path: Path, target: Path) -> None:
    """The volume, the container, the artifact or the file does not exist."""
    volumes = tmp_path / "volumes"
    assert refuses(volumes, target, entry())
    publish(volumes)
    assert refuses(volumes, target, entry("a/other"))
    assert refuses(volumes, target, entry(), container="other")
    for unknown in ("f" * 32, "", None, 7, ID.upper(), f"../{ID}"):
        assert refuses(volumes, target, entry(), artifact_id=unknown)


def test_file_outside_of_the_artifact_is_refused(tmp_path: Path, target: Path) -> None:
    """Neither names with dots nor symbolic links may leave the artifact."""
    volumes = tmp_path / "volumes"
    source = publish(volumes)
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    secret.chmod(0o444)
    source.with_name("link").symlink_to(secret)
    source.parent.with_name("folder").symlink_to(tmp_path)
    for path in ("a/link", "folder/secret", "../../../../../secret", str(secret), "."):
        assert refuses(volumes, target, entry(path))
    (tmp_path / "maker").symlink_to(volumes / "maker")
    assert refuses(volumes, target, entry(), container="../maker")


def test_file_on_another_file_system_is_refused(tmp_path: Path, target: Path) -> None:
    """A hard link is impossible there, so the file is downloaded."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    volumes = shared / f"bonseyes-test-{os.getpid()}"
    try:
        source = publish(volumes)
        assert refuses(volumes, target, entry())
    finally:
        source.unlink()
        for folder in (*source.parents,):
            folder.rmdir()
            if folder == volumes:
                break
