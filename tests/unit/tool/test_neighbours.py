"""Files of another container's volume are linked only if they are what its manifest promised."""

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
    """Return what the manifest says of a file."""
    return FileEntry(path, len(content), hashlib.sha256(content).hexdigest())


def publish(volumes: Path, content: bytes = CONTENT) -> Path:
    """Put a file where container `maker` publishes it."""
    file = volumes / "maker/artifacts" / ID / "data/a/file"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    file.chmod(0o444)
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return where the input is wanted; its folder is there."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine/file"


def refuses(volumes: Path, target: Path, wanted: FileEntry, container: str = "maker", artifact_id: object = ID) -> bool:
    """Tell whether nothing was linked, and nothing left."""
    return not Neighbour(volumes, container, artifact_id).link(wanted, target) and not [*target.parent.iterdir()]


def test_a_published_file_is_linked(tmp_path: Path, target: Path) -> None:
    """It is the very same file, and stays when the other one is deleted."""
    source = publish(tmp_path / "volumes")
    assert Neighbour(tmp_path / "volumes", "maker", ID).link(entry(), target)
    assert [*target.parent.iterdir()] == [target]
    assert target.samefile(source)
    source.unlink()
    assert target.read_bytes() == CONTENT


def test_the_way_to_a_volume_may_be_a_link(tmp_path: Path, target: Path) -> None:
    """Volumes can be gathered in one folder by links."""
    publish(tmp_path / "far")
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/maker").symlink_to(tmp_path / "far/maker")
    assert Neighbour(tmp_path / "volumes", "maker", ID).link(entry(), target)


def test_what_differs_is_refused(tmp_path: Path, target: Path) -> None:
    """Another digest, another size, a writable file: none is what was promised."""
    volumes = tmp_path / "volumes"
    source = publish(volumes)
    assert refuses(volumes, target, entry(content=b"PUBLISHED"))
    assert refuses(volumes, target, entry(content=b"shorter"))
    source.chmod(0o644)
    assert refuses(volumes, target, entry())


def test_what_is_not_there_is_refused(tmp_path: Path, target: Path) -> None:
    """Without volume, container, artifact or file there is nothing to link."""
    volumes = tmp_path / "volumes"
    assert refuses(volumes, target, entry())
    publish(volumes)
    assert refuses(volumes, target, entry("a/other"))
    assert refuses(volumes, target, entry(), container="other")
    for unknown in ("f" * 32, "", None, 7, ID.upper(), f"../{ID}"):
        assert refuses(volumes, target, entry(), artifact_id=unknown)


def test_nothing_outside_of_the_artifact_is_linked(tmp_path: Path, target: Path) -> None:
    """Neither names with dots nor symbolic links lead anywhere else."""
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


def test_another_file_system_is_refused(tmp_path: Path, target: Path) -> None:
    """No hard link reaches there; the file comes over HTTP."""
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
