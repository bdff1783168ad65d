"""Two real tool containers on one machine: inputs are linked if the volume is readable, else downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.client import Artifact
from tests.contract.tools.server import ToolServer, tool_servers

TEXT = "the very same"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ToolServer]]:
    """Start a `probe` and a `consumer` of its artifacts, which looks for volumes in the folder `seen`."""
    folder = tmp_path_factory.mktemp("neighbours")
    (folder / "seen").mkdir()
    with tool_servers(folder, "probe", "consumer", BONSEYES_VOLUMES=str(folder / "seen")) as started:
        yield started


@pytest.fixture
def seen(servers: list[ToolServer]) -> Iterator[Path]:
    """Return the path where the consumer looks for the probe's volume; it does not exist yet."""
    path = servers[0].volume.parent / "seen" / "probe"
    yield path
    path.unlink(missing_ok=True)


def inode(copy: Artifact) -> int:
    """Return the inode of the file that the consumer read."""
    return int(copy.read("inode"))


def consume(servers: list[ToolServer], name: str) -> bool:
    """Make an artifact of the probe, and one of the consumer from it; tell whether the consumer read the same file."""
    probe, consumer = servers
    source = probe.container.create(name, {"act": "write", "text": TEXT})
    assert source.wait(timeout_s=30).phase == "completed"
    copy = consumer.container.create(name, {"first": f"probe/{name}"})
    status = copy.wait(timeout_s=30)
    assert status.phase == "completed", status.reason
    assert copy.read("copy").decode() == TEXT
    published = probe.volume / "artifacts" / source.info()["id"] / "data/real"
    assert not [*consumer.volume.glob("artifacts/*/artifacts")]
    assert published.stat().st_nlink == 1, "no link is left behind"
    assert published.read_text() == TEXT
    return bool(inode(copy) == published.stat().st_ino)


def test_input_from_a_readable_volume_is_the_same_file(servers: list[ToolServer], seen: Path) -> None:
    """Nothing is copied."""
    seen.symlink_to(servers[0].volume)
    assert consume(servers, "linked")


def test_input_without_a_readable_volume_is_downloaded(servers: list[ToolServer], seen: Path) -> None:
    """The volume does not exist, or is no folder."""
    assert not consume(servers, "absent")
    seen.write_text("no folder")
    assert not consume(servers, "unreadable")


def test_wrong_file_in_the_volume_is_not_used(servers: list[ToolServer], seen: Path, tmp_path: Path) -> None:
    """It has the right size and path, but another digest."""
    probe, consumer = servers
    source = probe.container.create("wrong", {"act": "write", "text": TEXT})
    assert source.wait(timeout_s=30).phase == "completed"
    false = tmp_path / "artifacts" / source.info()["id"] / "data/real"
    false.parent.mkdir(parents=True)
    false.write_text(TEXT.upper())
    false.chmod(0o444)
    seen.symlink_to(tmp_path)
    copy = consumer.container.create("wrong", {"first": "probe/wrong"})
    assert copy.wait(timeout_s=30).phase == "completed"
    assert copy.read("copy").decode() == TEXT
    assert inode(copy) != false.stat().st_ino
