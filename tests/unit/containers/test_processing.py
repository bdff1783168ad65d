"""The processing tool: the values of the view, its augmentation, and the unchanged part of the dataset."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from bonseyes_dagster.errors import InvalidError, ToolError

Make = Callable[..., Path]


def rows(dataset: Path) -> list[dict[str, Any]]:
    """Return a dataset's samples."""
    return [row for shard in sorted(dataset.glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]


def view_of(row: dict[str, Any], size: int, name: str = "normalised") -> NDArray[np.float32]:
    """Return a sample's view."""
    return np.frombuffer(row["views"][name], "<f4").reshape(1, size, size)


def test_the_view_is_scaled_and_normalised(make: Make, dataset: Path) -> None:
    """Its values are (value / 255 - mean) / std of the scaled image."""
    made = rows(make("processing", dataset=dataset, size=16, mean=0.25, std=2.0))
    image = Image.open(io.BytesIO(made[3]["image"])).resize((16, 16), Image.Resampling.BILINEAR)
    expected = (np.asarray(image, np.float32) / 255 - 0.25) / 2
    assert np.allclose(view_of(made[3], 16)[0], expected, atol=1e-6)


def test_images_and_annotations_do_not_change(dataset: Path, processed: Path) -> None:
    """The output has the same bytes."""
    before = rows(dataset)
    after = [{key: row[key] for key in ("id", "image", "annotations")} for row in rows(processed)]
    assert after == before


def test_dataset_json_describes_the_view(processed: Path) -> None:
    """A model needs the same preprocessing for other images."""
    assert json.loads((processed / "dataset.json").read_text())["views"] == {
        "normalised": {
            "encoding": "raw",
            "dtype": "float32",
            "shape": [1, 12, 12],
            "width": 12,
            "height": 12,
            "channels": 1,
            "mean": 0.5,
            "std": 0.5,
            "augmented": False,
            "seed": None,
        }
    }


def test_a_view_of_another_name_is_added_and_of_the_same_name_replaced(make: Make, processed: Path) -> None:
    """A dataset can have several views."""
    both = make("processing", dataset=processed, size=8, view="small")
    assert [view_of(row, 12).shape for row in rows(both)[:1]] == [(1, 12, 12)]
    assert view_of(rows(both)[0], 8, "small").shape == (1, 8, 8)
    replaced = make("processing", dataset=both, size=6, view="small")
    assert set(rows(replaced)[0]["views"]) == {"normalised", "small"}
    assert view_of(rows(replaced)[0], 6, "small").shape == (1, 6, 6)


def test_augmentation_follows_the_seed(make: Make, dataset: Path) -> None:
    """Equal seeds give equal files. Other seeds, and no augmentation, give other files."""
    made = [
        make("processing", dataset=dataset, size=12, augment=augment, seed=seed)
        for augment, seed in ((True, 1), (True, 1), (True, 2), (False, 1))
    ]
    shards = [(folder / "samples-00000.parquet").read_bytes() for folder in made]
    assert shards[0] == shards[1]
    assert len(set(shards)) == 3


def test_augmented_images_stay_similar_to_their_class(make: Make, dataset: Path, processed: Path) -> None:
    """For over 90 % of the augmented images, the most similar original image has the same class."""
    plain = np.stack([view_of(row, 12) for row in rows(processed)]).reshape(160, -1)
    moved = rows(make("processing", dataset=dataset, size=12, augment=True))
    labels = [row["annotations"]["label"] for row in moved]
    nearest = [int(np.abs(plain - view_of(row, 12).reshape(-1)).sum(axis=1).argmin()) for row in moved]
    assert np.mean([labels[near] == label for near, label in zip(nearest, labels, strict=True)]) > 0.9


@pytest.mark.parametrize(
    "parameters", [{"size": 3}, {"size": 1025}, {"std": 0}, {"mean": 1e300}, {"view": "no/slash"}, {"seed": -1}]
)
def test_invalid_parameters_are_refused(make: Make, dataset: Path, parameters: dict[str, Any]) -> None:
    """The tool does not start with them."""
    with pytest.raises(InvalidError):
        make("processing", dataset=dataset, **parameters)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "dataset.json is not JSON: "),
        (
            '{"format": "x"}',
            "dataset.json does not describe a com.bonseyes.dataset; its `format` must be `com.bonseyes.dataset`.",
        ),
        (
            '{"format": "com.bonseyes.dataset", "format_version": 2}',
            "dataset.json has format version 2; this tool reads version 1.",
        ),
        ('{"format": "com.bonseyes.dataset", "format_version": 1}', "dataset.json is incomplete: 'classes'."),
    ],
)
def test_an_invalid_dataset_json_is_refused(make: Make, tmp_path: Path, document: str, message: str) -> None:
    """Each defect has its own message."""
    (tmp_path / "dataset.json").write_text(document)
    with pytest.raises(ToolError) as caught:
        make("processing", dataset=tmp_path)
    assert caught.value.message.startswith(message)


def test_a_shard_with_missing_samples_is_refused(make: Make, dataset: Path, tmp_path: Path) -> None:
    """Otherwise the tool makes a smaller dataset without an error."""
    document = json.loads((dataset / "dataset.json").read_text())
    document["shards"][0]["count"] = 161
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    (tmp_path / "samples-00000.parquet").write_bytes((dataset / "samples-00000.parquet").read_bytes())
    with pytest.raises(ToolError) as caught:
        make("processing", dataset=tmp_path)
    assert caught.value.message == "samples-00000.parquet holds 160 samples, but dataset.json promises 161."
