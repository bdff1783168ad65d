"""The training-set tool: splits tensors into training and validation samples, stratified and by seed."""

from __future__ import annotations

import math
from contextlib import ExitStack

import image_classification  # noqa: F401  # first: it keeps the libraries below quiet
import numpy as np
from image_classification.artifacts import Source, Work
from image_classification.splitting import draw_validation
from image_classification.tensors import TENSORS, TRAINING_SET, Tensor, TensorFile, TensorSet
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError

__all__ = ["create"]

_BLOCK_BYTES = 4 * 2**20


def create(artifact: Work, *, tensors: Source, validation_fraction: float = 0.2, seed: int = 0) -> None:
    """Draw the validation samples. Then copy both parts, in the order of the samples, a few MiB at a time."""
    known = TensorSet.read(tensors, TENSORS)
    labels = np.asarray(known.open(tensors, "outputs"))
    count = known.tensors["inputs"].shape[0] if "inputs" in known.tensors else 0
    if count != len(labels):
        raise ToolError(
            f"There are {count:,} inputs and {len(labels):,} outputs; there must be one output for each input."
        )
    is_validation = draw_validation(labels, known.classes, validation_fraction, seed)
    parts = {"train": ~is_validation, "validation": is_validation}
    written: dict[str, Tensor] = {}
    for name in ("inputs", "outputs"):
        written |= _split(artifact, known, tensors, name, parts)
    counts = {
        part: [int(count) for count in np.bincount(labels[mask], minlength=len(known.classes))]
        for part, mask in parts.items()
    }
    TensorSet(tensors=written, classes=known.classes, preprocessing=known.preprocessing).write(
        artifact, TRAINING_SET, class_counts=counts, split={"validation_fraction": validation_fraction, "seed": seed}
    )
    print(f"{sum(counts['train']):,} samples to train with, {sum(counts['validation']):,} to validate with")


def _split(
    artifact: Work, known: TensorSet, source: Source, name: str, parts: dict[str, NDArray[np.bool_]]
) -> dict[str, Tensor]:
    tensor = known.tensors[name]
    rows = max(1, _BLOCK_BYTES // (np.dtype(tensor.dtype).itemsize * max(1, math.prod(tensor.shape[1:]))))
    with ExitStack() as stack:
        files = {
            part: stack.enter_context(
                TensorFile(artifact, f"{part}-{name}.npy", (int(mask.sum()), *tensor.shape[1:]), tensor.dtype)
            )
            for part, mask in parts.items()
        }
        start = 0
        for block in known.blocks(source, name, rows):
            for part, file in files.items():
                file.write(block[parts[part][start : start + len(block)]])
            start += len(block)
            artifact.set_progress(start, tensor.shape[0], "samples", name)
        return {f"{part}_{name}": file.finish() for part, file in files.items()}
