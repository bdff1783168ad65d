"""The import tool: the archives that it reads, and its error message for each kind of broken archive."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from bonseyes_dagster.errors import InvalidError, ToolError

Make = Callable[..., Path]

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([0, 2, 1], np.uint8)


def idx(values: NDArray[np.uint8], shape: tuple[int, ...] | None = None, kind: int = 8) -> bytes:
    """Return an IDX archive. Its header may claim another shape and another type."""
    shape = values.shape if shape is None else shape
    return bytes([0, 0, kind, len(shape)]) + np.array(shape, ">u4").tobytes() + values.tobytes()


def run(make: Make, folder: Path, images: bytes, labels: bytes, **more: Any) -> Path:
    """Import two archives given as bytes."""
    (folder / "images").write_bytes(images)
    (folder / "labels").write_bytes(labels)
    return make("import", images=folder / "images", labels=folder / "labels", **more)


def test_the_dataset_keeps_every_pixel_and_label(
    make: Make, archives: dict[str, Path], dataset: Path, digits: ModuleType
) -> None:
    """The order of the samples does not change either."""
    rows = [row for shard in sorted(dataset.glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]
    with gzip.open(archives["train-images"]) as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 12, 10)
    with gzip.open(archives["train-labels"]) as file:
        labels = list(file.read()[8:])
    (dataset.parent / "one.png").write_bytes(rows[7]["image"])
    assert np.array_equal(np.asarray(Image.open(dataset.parent / "one.png")), pixels[7])
    assert [row["annotations"]["label"] for row in rows] == labels
    assert [row["id"] for row in rows][:2] == ["000000000", "000000001"]


def test_dataset_json_has_the_documented_content(dataset: Path) -> None:
    """docs/formats.md documents these keys and no others. The digests of the shards are right."""
    document = json.loads((dataset / "dataset.json").read_text())
    shard = document.pop("shards")[0]
    assert document == {
        "format": "com.bonseyes.dataset",
        "format_version": 1,
        "count": 160,
        "classes": ["0", "1", "2", "3"],
        "class_counts": [40, 40, 40, 40],
        "image": {"encoding": "png", "width": 10, "height": 12, "channels": 1},
        "views": {},
    }
    data = (dataset / shard["path"]).read_bytes()
    assert shard == {
        "path": "samples-00000.parquet",
        "count": 160,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_gzip_is_recognised_by_content(make: Make, tmp_path: Path) -> None:
    """A compressed and a plain archive of the same name give the same dataset."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    plain = run(make, one, idx(IMAGES), idx(LABELS))
    packed = run(make, other, gzip.compress(idx(IMAGES)), gzip.compress(idx(LABELS)))
    assert (plain / "dataset.json").read_bytes() == (packed / "dataset.json").read_bytes()


def test_class_names_are_used(make: Make, tmp_path: Path) -> None:
    """A class without samples keeps its name."""
    made = run(make, tmp_path, idx(IMAGES), idx(LABELS), class_names=["ant", "bee", "cat", "dog"])
    document = json.loads((made / "dataset.json").read_text())
    assert document["classes"] == ["ant", "bee", "cat", "dog"]
    assert document["class_counts"] == [1, 1, 1, 0]


def test_too_few_or_equal_class_names_are_refused(make: Make, tmp_path: Path) -> None:
    """The parameter's schema refuses them, so the tool does not start."""
    for names in (["ant"], ["ant", "ant", "bee"]):
        with pytest.raises(InvalidError):
            run(make, tmp_path, idx(IMAGES), idx(LABELS), class_names=names)


def test_many_samples_become_several_shards(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard has 10,000 samples and at most a batch more. No sample is lost."""
    images = np.zeros((21_000, 2, 2), np.uint8)
    made = run(make, tmp_path, idx(images), idx((np.arange(21_000) % 2).astype(np.uint8)))
    shards = json.loads((made / "dataset.json").read_text())["shards"]
    assert [shard["count"] for shard in shards] == [10_000, 10_000, 1_000]
    assert [pq.read_metadata(made / shard["path"]).num_rows for shard in shards] == [10_000, 10_000, 1_000]


BROKEN = {
    "empty": (b"", idx(LABELS), "The images archive is empty: it has 0 bytes."),
    "empty gzip": (gzip.compress(b""), idx(LABELS), "The images archive is empty: its gzip stream holds 0 bytes."),
    "no samples": (
        idx(IMAGES[:0]),
        idx(LABELS[:0]),
        "The images archive is empty: its header promises 0 samples.",
    ),
    "not an IDX archive": (
        b"\x89PNG\r\n",
        idx(LABELS),
        "The images archive is not an IDX archive: it starts with 89504e47, not 00000803.",
    ),
    "three bytes": (
        b"\0\0\x08",
        idx(LABELS),
        "The images archive is not an IDX archive: it starts with 000008, not 00000803.",
    ),
    "floats": (
        idx(IMAGES, kind=0x0D),
        idx(LABELS),
        "The images archive holds float32; it must hold unsigned bytes.",
    ),
    "swapped": (
        idx(LABELS),
        idx(IMAGES),
        "The images archive has 1 dimension, but images (count, rows, columns) have 3;"
        " the images and the labels may be swapped.",
    ),
    "colour": (
        idx(np.zeros((3, 4, 5, 3), np.uint8)),
        idx(LABELS),
        "The images archive has 4 dimensions, but images (count, rows, columns) have 3;"
        " convert images with colour channels to shades of grey.",
    ),
    "two dimensions": (
        idx(IMAGES[0]),
        idx(LABELS),
        "The images archive has 2 dimensions, but images (count, rows, columns) have 3;"
        " it must hold images (count, rows, columns).",
    ),
    "header cut": (
        idx(IMAGES)[:9],
        idx(LABELS),
        "The images archive is truncated: it ends after 9 of the 16 bytes of its header.",
    ),
    "truncated": (
        idx(IMAGES)[:-1],
        idx(LABELS),
        "The images archive is truncated: its header promises 76 bytes, but it ends after 75.",
    ),
    "labels truncated": (
        idx(IMAGES),
        idx(LABELS[:2], (3,)),
        "The labels archive is truncated: its header promises 11 bytes, but it ends after 10.",
    ),
    "trailing": (
        idx(IMAGES) + b"x",
        idx(LABELS),
        "The images archive must end after the 3 samples that its header promises, but more bytes follow.",
    ),
    "labels trailing": (
        idx(IMAGES),
        idx(LABELS) + b"x",
        "The labels archive must end after the 3 samples that its header promises, but more bytes follow.",
    ),
    "counts differ": (
        idx(IMAGES),
        idx(LABELS[:2]),
        "The images archive holds 3 images, but the labels archive holds 2 labels;"
        " there must be one label for each image.",
    ),
    "no pixels": (
        idx(IMAGES, (3, 0, 5)),
        idx(LABELS),
        "The images archive's header promises samples of 0 x 5 pixels;"
        " a sample must have between 1 and 67,108,864 pixels.",
    ),
    "absurd size": (
        idx(IMAGES, (3, 2**32 - 1, 2**32 - 1)),
        idx(LABELS),
        "The images archive's header promises samples of 4,294,967,295 x 4,294,967,295 pixels;"
        " a sample must have between 1 and 67,108,864 pixels.",
    ),
    "gzip cut": (
        gzip.compress(idx(IMAGES), mtime=0)[:-12],
        idx(LABELS),
        "The images archive's gzip stream is broken:"
        " Compressed file ended before the end-of-stream marker was reached.",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_kind_of_broken_archive_has_its_own_message(make: Make, tmp_path: Path, case: str) -> None:
    """The message says what is wrong with this archive."""
    images, labels, sentence = BROKEN[case]
    with pytest.raises(ToolError) as caught:
        run(make, tmp_path, images, labels)
    assert caught.value.message == sentence


@pytest.mark.parametrize("tail", [b"\n", b"\r\n", b"junk", b"\0" * 512 + b"x"])
def test_bytes_after_the_gzip_stream_are_ignored(
    make: Make, tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The tool logs a warning, as `gunzip` does. A second gzip stream belongs to the archive."""
    packed = gzip.compress(idx(IMAGES)[:20]) + gzip.compress(idx(IMAGES)[20:]) + tail
    made = run(make, tmp_path, packed, idx(LABELS))
    assert json.loads((made / "dataset.json").read_text())["count"] == 3
    assert "The images archive has bytes after its gzip stream; they are ignored." in caplog.text


def test_a_gzip_stream_with_a_wrong_checksum_is_refused(make: Make, tmp_path: Path) -> None:
    """The stream unpacks, but one bit is wrong."""
    packed = bytearray(gzip.compress(idx(IMAGES), mtime=0))
    packed[-5] ^= 1
    with pytest.raises(ToolError, match=r"^The images archive's gzip stream is broken: CRC check failed.*\.$"):
        run(make, tmp_path, bytes(packed), idx(LABELS))


def test_a_label_without_a_class_name_is_refused(make: Make, tmp_path: Path) -> None:
    """The message names the sample, its label and the range of labels."""
    with pytest.raises(ToolError) as caught:
        run(make, tmp_path, idx(IMAGES), idx(LABELS), class_names=["ant", "bee"])
    assert caught.value.message == (
        "The label of sample 1 is 2, but class-names names 2 classes; labels must be between 0 and 1."
    )
