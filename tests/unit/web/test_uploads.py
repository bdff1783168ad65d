"""The name of an uploaded file is safe on every disk, and the file is whole, hashed and durable."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bonseyes_dagster.errors import StorageFullError
from bonseyes_dagster.web.uploads import UploadedFile, safe_file_name


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("train.gz", "train.gz"),
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\x.bin", "x.bin"),
        ("..", ""),
        (".hidden", "hidden"),
        ("", ""),
        ("a\0b\nc", "abc"),
        ("ü" * 300 + ".gz", "ü" * 98 + ".gz"),
        ("\ud800x", "x"),
    ],
)
def test_file_names_are_harmless(given: str, kept: str) -> None:
    """Only the last part counts, without what could hurt."""
    name = safe_file_name(given)
    assert name == kept
    assert len(name.encode()) <= 200


def test_a_file_is_whole_and_hashed(tmp_path: Path) -> None:
    """Also one of which the disk begins to write parts while it arrives."""
    pieces = [bytes([number]) * (3 << 20) + b"odd" for number in range(4)]
    with UploadedFile(tmp_path / "x", reserve_bytes=0) as file:
        for piece in pieces:
            assert file.write(memoryview(piece)) == len(piece)
    content = b"".join(pieces)
    assert (tmp_path / "x").read_bytes() == content
    assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_reserve_is_kept(tmp_path: Path) -> None:
    """What goes on already must find room."""
    with UploadedFile(tmp_path / "x", reserve_bytes=2**62) as file, pytest.raises(StorageFullError):
        file.write(b"abc")


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Two parts cannot have one file."""
    (tmp_path / "x").write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        UploadedFile(tmp_path / "x", reserve_bytes=0)
    assert (tmp_path / "x").read_bytes() == b"kept"
