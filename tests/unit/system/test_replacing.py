"""A file is replaced whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import pytest

from bonseyes_dagster.system.replacing import replace_file, replacing


def test_content_and_mode_are_those_asked_for(tmp_path: Path):
    """A file with a password is nobody else's, from its first byte on."""
    path = tmp_path / "dagster.yaml"
    with replacing(path, mode=0o600) as file:
        [draft] = tmp_path.iterdir()
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600
        file.write(b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["dagster.yaml"]


@pytest.mark.parametrize("is_durable", [True, False])
def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path, is_durable: bool):
    """Readers go on with what they had."""
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="half"), replacing(path, is_durable=is_durable) as file:
        file.write(b"ne")
        raise ValueError("half")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_readers_never_see_a_part_while_many_write(tmp_path: Path):
    """Each writer has a draft of its own."""
    path = tmp_path / "state"
    whole = {bytes([letter]) * 100_000 for letter in b"abcd"}
    replace_file(path, min(whole))

    def write(content: bytes) -> None:
        for _ in range(50):
            replace_file(path, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in whole]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_bytes())
    for writer in writers:
        writer.join()
    assert seen <= whole
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_a_link_in_the_place_of_the_draft_is_not_followed(tmp_path: Path):
    """Who may write to the folder cannot have another file overwritten."""
    other = tmp_path / "other"
    other.write_bytes(b"kept")
    name = f".state.{os.getpid()}-{threading.get_native_id()}"
    (tmp_path / name).symlink_to(other)
    with pytest.raises(OSError):
        replace_file(tmp_path / "state", b"new")
    assert other.read_bytes() == b"kept"


def test_a_durable_file_may_lie_in_a_linked_folder(tmp_path: Path):
    """A volume may be a symbolic link to another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "volume").symlink_to(tmp_path / "disk")
    replace_file(tmp_path / "volume" / "state", b"new", is_durable=True)
    assert (tmp_path / "disk" / "state").read_bytes() == b"new"
