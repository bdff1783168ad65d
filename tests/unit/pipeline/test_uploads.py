"""The archives of runs on the volume: complete, safely named, kept as long as their run."""

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


def test_kept_files_have_their_bytes_size_and_digest(uploads: Uploads) -> None:
    """They are stored under the parameter of the upload."""
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


def test_discarded_files_are_removed(uploads: Uploads, tmp_path: Path) -> None:
    """This holds during the upload of a part, and for a second call."""
    draft = uploads.begin()
    draft.open("images", "a").write(b"abc")
    draft.discard()
    draft.discard()
    assert list((tmp_path / "drafts").iterdir()) == []


def test_draft_without_files_has_no_token(uploads: Uploads) -> None:
    """A run of URLs keeps nothing."""
    assert uploads.keep(uploads.begin()) == ""
    assert uploads.names("") == []


def test_full_disk_refuses_the_upload(tmp_path: Path) -> None:
    """The reserve is for the work in progress."""
    draft = Uploads(tmp_path, reserve_bytes=2**62).begin()
    with pytest.raises(StorageFullError):
        draft.open("images", "a").write(b"abc")
    draft.discard()


def test_old_drafts_and_uploads_without_a_run_are_found(uploads: Uploads, tmp_path: Path) -> None:
    """A process that died leaves drafts, and uploads that got no run."""
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
    """Dagster's storage may have lost the run, so its files are not removed."""
    draft = uploads.begin()
    with draft.open("images", "a") as file:
        file.write(b"precious")
    token = uploads.keep(draft)
    uploads.set_aside(token)
    assert uploads.tokens(older_than_s=-60) == []
    [kept] = (tmp_path / "lost+found").glob(f"uploads-{token}-*")
    assert (kept / token / "images/a").read_bytes() == b"precious"
    assert "No run has the tag" in (kept / "why.txt").read_text()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"images": 1}', '{"images": {"path": "../../x", "size": 1, "sha256": ""}}']
)
def test_damaged_list_of_uploads_leaves_the_run_readable(uploads: Uploads, tmp_path: Path, content: str) -> None:
    """A request for the file gets the reason, and no path leads out of the uploads."""
    draft = uploads.begin()
    draft.open("images", "a").close()
    token = uploads.keep(draft)
    (tmp_path / "uploads" / token / "files.json").write_text(content)
    assert uploads.names(token) == []
    with pytest.raises(NotFoundError, match="damaged"):
        uploads.file(token, "images")
