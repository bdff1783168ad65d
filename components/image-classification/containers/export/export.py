"""The export tool: writes a view of a dataset as tensors, which other programs can map into memory."""

from __future__ import annotations

import image_classification  # noqa: F401  # first: it keeps the libraries below quiet
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from image_classification.artifacts import Source, Work
from image_classification.dataset import Dataset, View, rows_within
from image_classification.tensors import TENSORS, TensorFile, TensorSet
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError

__all__ = ["create"]

_COLUMNS = ("annotations.label", "views.{view}")


def create(artifact: Work, *, dataset: Source, view: str = "normalised") -> None:
    """Write inputs and outputs batch by batch, then `tensors.json`."""
    known = Dataset.read(dataset)
    exported = known.view(view)
    columns = [column.format(view=view) for column in _COLUMNS]
    with (
        TensorFile(artifact, "inputs.npy", (known.count, *exported.shape), "<f4") as inputs,
        TensorFile(artifact, "outputs.npy", (known.count,), "<i8") as outputs,
    ):
        done = 0
        for batch in known.batches(dataset, rows_within(exported.size_bytes), columns):
            inputs.write(_inputs(batch, view, exported))
            outputs.write(_outputs(batch, len(known.classes)))
            done += batch.num_rows
            artifact.set_progress(done, known.count, "samples")
        tensors = {"inputs": inputs.finish(), "outputs": outputs.finish()}
    TensorSet(tensors=tensors, classes=known.classes, preprocessing=exported.preprocessing).write(artifact, TENSORS)
    for name, tensor in tensors.items():
        print(f"{name}: {tensor.dtype} {tensor.shape}, {tensor.size:,} bytes")


def _inputs(batch: pa.RecordBatch, name: str, view: View) -> NDArray[np.float32]:
    values = batch.column("views").field(name)
    sizes = pc.unique(pc.binary_length(values)).to_pylist()
    if sizes != [view.size_bytes]:
        raise ToolError(f"View `{name}` has samples of {sizes} bytes, but dataset.json promises {view.size_bytes}.")
    return np.frombuffer(b"".join(values.to_pylist()), "<f4").reshape(len(values), *view.shape)


def _outputs(batch: pa.RecordBatch, class_count: int) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = (
        batch.column("annotations").field("label").to_numpy(zero_copy_only=False).astype(np.int64)
    )
    if labels.min() < 0 or labels.max() >= class_count:
        raise ToolError(
            f"The dataset has labels from {labels.min()} to {labels.max()}; {class_count} classes need labels"
            f" from 0 to {class_count - 1}."
        )
    return labels
