"""The archives of runs on the volume: whole, named safely, kept as long as wanted."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from bonseyes_dagster.errors import NotFoundError, StorageFullError
from bonseyes_dagster.pipeline.uploads import Uploads


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    """A volume with room."""
    return Uploads(tmp_path, reserve_bytes=0)


def test_kept_files_are_whole(uploads: Uploads) -> None:
    """With their sizes and digests, under the parameter that they are for."""
    draft = uploads.begin()
    with draft.open("images", "train.idx.gz") as file:
        file.write(b"abc")
        file.write(memoryview(b"def"))
    token = uploads.keep(draft)
    draft.discard()
    assert uploads.path(token, draft.files["images"]).read_bytes() == b"abcdef"
    assert uploads.path(token, draft.files["images"]).name == "train.idx.gz"
    assert uploads.names(token) == ["images"]
    kept = uploads.file(token, "images")
    assert (kept.entry.path, kept.entry.size) == ("train.idx.gz", 6)
    assert kept.entry.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    with kept.open() as file:
        assert file.read() == b"abcdef"
    with pytest.raises(NotFoundError, match="images"):
        uploads.file(token, "labels")


def test_discarded_files_are_gone(uploads: Uploads, tmp_path: Path) -> None:
    """Also while a part is still being written, and twice."""
    draft = uploads.begin()
    draft.open("images", "a").write(b"abc")
    draft.discard()
    draft.discard()
    assert list((tmp_path / "drafts").iterdir()) == []


def test_no_files_are_no_token(uploads: Uploads) -> None:
    """A run of URLs keeps nothing."""
    assert uploads.keep(uploads.begin()) == ""
    assert uploads.names("") == []


def test_full_disk_refuses_while_it_fills(tmp_path: Path) -> None:
    """The reserve is for what goes on already."""
    draft = Uploads(tmp_path, reserve_bytes=2**62).begin()
    with pytest.raises(StorageFullError):
        draft.open("images", "a").write(b"abc")
    draft.discard()


def test_left_overs_are_found(uploads: Uploads, tmp_path: Path) -> None:
    """Drafts of a process that died, and files that no run came to want."""
    draft = uploads.begin()
    draft.open("images", "a").close()
    kept = uploads.begin()
    kept.open("images", "a").close()
    token = uploads.keep(kept)
    assert uploads.tokens(older_than_s=60) == []
    for folder in (tmp_path / "drafts" / draft.folder.name, tmp_path / "uploads" / token):
        os.utime(folder, (time.time() - 10**6,) * 2)
    assert uploads.tokens(older_than_s=60) == [token]
    uploads.clean_drafts()
    uploads.remove(token)
    assert list((tmp_path / "drafts").iterdir()) == []
    assert list((tmp_path / "uploads").iterdir()) == []


def test_uploads_without_a_run_are_set_aside(uploads: Uploads, tmp_path: Path) -> None:
    """Their run may be what was lost, as when Dagster's storage is made anew: nothing of theirs is removed."""
    draft = uploads.begin()
    with draft.open("images", "a") as file:
        file.write(b"precious")
    token = uploads.keep(draft)
    uploads.set_aside(token)
    assert uploads.tokens(older_than_s=-60) == []
    [kept] = (tmp_path / "lost+found").glob(f"uploads-{token}-*")
    assert (kept / token / "images/a").read_bytes() == b"precious"
    assert "No run bears" in (kept / "why.txt").read_text()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"images": 1}', '{"images": {"path": "../../x", "size": 1, "sha256": ""}}']
)
def test_a_damaged_list_of_uploads_hides_nothing_else(uploads: Uploads, tmp_path: Path, content: str) -> None:
    """The run stays readable; its file is answered with the reason, and no path leads out."""
    draft = uploads.begin()
    draft.open("images", "a").close()
    token = uploads.keep(draft)
    (tmp_path / "uploads" / token / "files.json").write_text(content)
    assert uploads.names(token) == []
    with pytest.raises(NotFoundError, match="damaged"):
        uploads.file(token, "images")
