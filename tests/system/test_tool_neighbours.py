"""Two real tool containers on one machine: inputs are linked where the volume can be read, else downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.client import Artifact
from tests.contract.tools.server import ToolServer, tool_servers

TEXT = "the very same"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ToolServer]]:
    """A probe and a consumer of its artifacts, which looks for volumes in the folder `seen`."""
    folder = tmp_path_factory.mktemp("neighbours")
    (folder / "seen").mkdir()
    with tool_servers(folder, "probe", "consumer", BONSEYES_VOLUMES=str(folder / "seen")) as started:
        yield started


@pytest.fixture
def seen(servers: list[ToolServer]) -> Iterator[Path]:
    """Return where the consumer looks for the probe's volume; nothing is there."""
    path = servers[0].volume.parent / "seen" / "probe"
    yield path
    path.unlink(missing_ok=True)


def inode(copy: Artifact) -> int:
    """Return which file the consumer read."""
    return int(copy.read("inode"))


def consume(servers: list[ToolServer], name: str) -> bool:
    """Make an artifact of the probe and one of it; tell whether the consumer read the probe's very file."""
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


def test_an_input_is_the_same_file(servers: list[ToolServer], seen: Path) -> None:
    """Where the volume can be read nothing is copied."""
    seen.symlink_to(servers[0].volume)
    assert consume(servers, "linked")


def test_without_the_volume_it_is_downloaded(servers: list[ToolServer], seen: Path) -> None:
    """A volume that is not there, or is no folder, is no reason to fail."""
    assert not consume(servers, "absent")
    seen.write_text("no folder")
    assert not consume(servers, "unreadable")


def test_a_wrong_file_is_downloaded(servers: list[ToolServer], seen: Path, tmp_path: Path) -> None:
    """A volume whose file is another one, of the same length and place, is found out by the digest."""
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
