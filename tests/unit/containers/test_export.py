"""The export tool: tensors that equal the view, and their description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bonseyes_dagster.errors import ToolError

Make = Callable[..., Path]


def test_tensors_equal_the_view(processed: Path, tensors: Path) -> None:
    """Inputs and outputs are the view and the labels, in the order of the samples. numpy can map them into memory."""
    table = pq.read_table(processed / "samples-00000.parquet").to_pylist()
    inputs = np.load(tensors / "inputs.npy", mmap_mode="r", allow_pickle=False)
    outputs = np.load(tensors / "outputs.npy", mmap_mode="r", allow_pickle=False)
    assert inputs.shape == (160, 1, 12, 12)
    assert inputs.dtype == np.float32
    assert outputs.dtype == np.int64
    assert inputs.tobytes() == b"".join(row["views"]["normalised"] for row in table)
    assert outputs.tolist() == [row["annotations"]["label"] for row in table]


def test_tensors_json_has_the_documented_content(tensors: Path) -> None:
    """docs/formats.md documents these keys and no others."""

    def entry(name: str, shape: list[int], dtype: str) -> dict[str, object]:
        data = (tensors / name).read_bytes()
        return {
            "path": name,
            "shape": shape,
            "dtype": dtype,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    assert json.loads((tensors / "tensors.json").read_text()) == {
        "format": "com.bonseyes.tensors",
        "format_version": 1,
        "tensors": {
            "inputs": entry("inputs.npy", [160, 1, 12, 12], "float32"),
            "outputs": entry("outputs.npy", [160], "int64"),
        },
        "classes": ["0", "1", "2", "3"],
        "preprocessing": {
            "width": 12,
            "height": 12,
            "channels": 1,
            "resampling": "bilinear",
            "scale": 255,
            "mean": 0.5,
            "std": 0.5,
        },
    }


def test_the_error_for_a_missing_view_names_the_existing_views(make: Make, dataset: Path, processed: Path) -> None:
    """If there are no views, it names the tool that makes one."""
    with pytest.raises(ToolError) as caught:
        make("export", dataset=processed, view="other")
    assert caught.value.message == "The dataset has no view `other`; its views are `normalised`."
    with pytest.raises(ToolError) as caught:
        make("export", dataset=dataset)
    assert caught.value.message == "The dataset has no view `normalised`; the processing tool makes a view."
