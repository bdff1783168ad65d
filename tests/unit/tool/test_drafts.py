"""Uploads stream to disk, with a digest and a limit, and are removed unless their artifact is created."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bonseyes_dagster.errors import StorageFullError
from bonseyes_dagster.tool.artifacts.drafts import CreationDraft, is_abandoned
from bonseyes_dagster.tool.artifacts.layout import Volume


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Return an empty volume."""
    made = Volume(tmp_path)
    made.make()
    return made


def draft_of(volume: Volume, *, reserve_bytes: int = 0) -> CreationDraft:
    """Return a draft that expects the file `images`."""
    return CreationDraft(volume, reserve_bytes=reserve_bytes, file_parameters=frozenset({"images", "labels"}))


def test_upload_is_moved_to_its_artifact(volume: Volume) -> None:
    """The draft reports its size and digest."""
    draft = draft_of(volume)
    with draft.open("images", "train.gz") as file:
        file.write(b"abc")
        file.write(b"def")
    assert draft.files() == {
        "images": {"filename": "train.gz", "size": 6, "sha256": hashlib.sha256(b"abcdef").hexdigest()}
    }
    assert not is_abandoned(volume.drafts / draft.id)
    draft.move_to_artifacts()
    draft.hand_over()
    draft.discard()
    assert (volume.folder(draft.id).inputs / "images" / "train.gz").read_bytes() == b"abcdef"
    assert is_abandoned(volume.artifacts / draft.id)


def test_large_upload_is_complete(volume: Volume) -> None:
    """The disk begins to write such a file during the upload."""
    pieces = [bytes([number]) * (3 << 20) + b"odd" for number in range(7)]
    draft = draft_of(volume)
    with draft.open("images", "large") as file:
        for piece in pieces:
            file.write(piece)
    assert draft.files()["images"]["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()
    draft.move_to_artifacts()
    draft.hand_over()
    assert (volume.folder(draft.id).inputs / "images" / "large").read_bytes() == b"".join(pieces)


def test_discard_removes_everything(volume: Volume) -> None:
    """Before and after `move_to_artifacts`, and if it is called twice."""
    for settled in (False, True):
        draft = draft_of(volume)
        draft.open("images", "x").write(b"abc")
        if settled:
            draft.move_to_artifacts()
        draft.discard()
        draft.discard()
        assert [*volume.drafts.iterdir(), *volume.artifacts.iterdir()] == []


def test_creation_without_uploads_makes_no_folder(volume: Volume) -> None:
    """Most creations have no uploads."""
    draft = draft_of(volume)
    draft.move_to_artifacts()
    draft.hand_over()
    assert [*volume.drafts.iterdir(), *volume.artifacts.iterdir()] == []


def test_upload_beyond_the_reserve_is_refused(volume: Volume) -> None:
    """The reserve of the disk stays free for the work in progress."""
    draft = draft_of(volume, reserve_bytes=2**60)
    with draft.open("images", "x") as file, pytest.raises(StorageFullError):
        for _ in range(20):
            file.write(b"x" * (1 << 20))
    draft.discard()


def test_unexpected_parts_are_discarded_and_reported(volume: Volume) -> None:
    """The check of the parameters reports them later."""
    draft = draft_of(volume)
    assert draft.open("other", "x").write(b"abc") == 3
    draft.open("images", "x").close()
    assert draft.parts == {"other", "images"}
    draft.discard()
