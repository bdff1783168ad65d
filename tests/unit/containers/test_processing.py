"""The processing tool: the view's numbers, its augmentation, and what is kept of the dataset."""

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


def test_normalises(make: Make, dataset: Path) -> None:
    """A view of the images' own values is (value / 255 - mean) / std of the scaled image."""
    made = rows(make("processing", dataset=dataset, size=16, mean=0.25, std=2.0))
    image = Image.open(io.BytesIO(made[3]["image"])).resize((16, 16), Image.Resampling.BILINEAR)
    expected = (np.asarray(image, np.float32) / 255 - 0.25) / 2
    assert np.allclose(view_of(made[3], 16)[0], expected, atol=1e-6)


def test_keeps_images_and_annotations(dataset: Path, processed: Path) -> None:
    """Everything that the dataset had is still there, byte for byte."""
    before = rows(dataset)
    after = [{key: row[key] for key in ("id", "image", "annotations")} for row in rows(processed)]
    assert after == before


def test_describes_the_view(processed: Path) -> None:
    """`dataset.json` tells how the view was made."""
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


def test_views_add_up(make: Make, processed: Path) -> None:
    """A second view stands beside the first; the same name again replaces."""
    both = make("processing", dataset=processed, size=8, view="small")
    assert [view_of(row, 12).shape for row in rows(both)[:1]] == [(1, 12, 12)]
    assert view_of(rows(both)[0], 8, "small").shape == (1, 8, 8)
    replaced = make("processing", dataset=both, size=6, view="small")
    assert set(rows(replaced)[0]["views"]) == {"normalised", "small"}
    assert view_of(rows(replaced)[0], 6, "small").shape == (1, 6, 6)


def test_augmentation_follows_the_seed(make: Make, dataset: Path) -> None:
    """The same seed gives the same files, another seed others, and none of them what no augmentation gives."""
    made = [
        make("processing", dataset=dataset, size=12, augment=augment, seed=seed)
        for augment, seed in ((True, 1), (True, 1), (True, 2), (False, 1))
    ]
    shards = [(folder / "samples-00000.parquet").read_bytes() for folder in made]
    assert shards[0] == shards[1]
    assert len(set(shards)) == 3


def test_augmentation_moves_but_keeps_the_image(make: Make, dataset: Path, processed: Path) -> None:
    """An augmented image is still nearer to its own original than to most others."""
    plain = np.stack([view_of(row, 12) for row in rows(processed)]).reshape(160, -1)
    moved = rows(make("processing", dataset=dataset, size=12, augment=True))
    labels = [row["annotations"]["label"] for row in moved]
    nearest = [int(np.abs(plain - view_of(row, 12).reshape(-1)).sum(axis=1).argmin()) for row in moved]
    assert np.mean([labels[near] == label for near, label in zip(nearest, labels, strict=True)]) > 0.9


@pytest.mark.parametrize(
    "parameters", [{"size": 3}, {"size": 1025}, {"std": 0}, {"mean": 1e300}, {"view": "no/slash"}, {"seed": -1}]
)
def test_refuses_senseless_parameters(make: Make, dataset: Path, parameters: dict[str, Any]) -> None:
    """What cannot work is refused before it runs."""
    with pytest.raises(InvalidError):
        make("processing", dataset=dataset, **parameters)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("{", "dataset.json is not JSON: "),
        ('{"format": "x"}', "dataset.json does not describe a com.bonseyes.dataset: its `format` says otherwise."),
        (
            '{"format": "com.bonseyes.dataset", "format_version": 2}',
            "dataset.json is of format version 2; this tool reads version 1.",
        ),
        ('{"format": "com.bonseyes.dataset", "format_version": 1}', "dataset.json is incomplete: 'classes'."),
    ],
)
def test_refuses_what_is_no_dataset(make: Make, tmp_path: Path, document: str, sentence: str) -> None:
    """A folder that is no dataset of this format fails with a sentence."""
    (tmp_path / "dataset.json").write_text(document)
    with pytest.raises(ToolError) as caught:
        make("processing", dataset=tmp_path)
    assert caught.value.message.startswith(sentence)


def test_a_shard_that_lacks_samples_is_found(make: Make, dataset: Path, tmp_path: Path) -> None:
    """A dataset whose shard holds fewer samples than promised fails, rather than becoming a smaller one."""
    document = json.loads((dataset / "dataset.json").read_text())
    document["shards"][0]["count"] = 161
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    (tmp_path / "samples-00000.parquet").write_bytes((dataset / "samples-00000.parquet").read_bytes())
    with pytest.raises(ToolError) as caught:
        make("processing", dataset=tmp_path)
    assert caught.value.message == "samples-00000.parquet holds 160 samples where dataset.json promises 161."
