"""Measures a classifier: quality, latency, throughput and size. The samples may be larger than memory.

The benchmarking tool calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError
from image_classification.inference import Classifier, Latency
from image_classification.metrics import Quality, confusion_matrix, measure_quality

__all__ = ["Measurement", "measure"]

_BATCH_BYTES = 4 * 2**20
_BATCH_SAMPLES = 256
_LATENCY_SAMPLES = 200


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results. `matrix` has a row for each true class and a column for each predicted class."""

    matrix: NDArray[np.int64]
    quality: Quality
    latency: Latency
    batch_size: int
    metrics: dict[str, float]


def measure(
    classifier: Classifier,
    inputs: NDArray[np.float32],
    outputs: NDArray[np.int64],
    class_numbers: Sequence[int],
    class_count: int,
    size_bytes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """Classify every sample. `class_numbers` maps the class numbers of the samples to those of the model."""
    _check(classifier, inputs, class_count)
    batch_size = max(1, min(_BATCH_SAMPLES, _BATCH_BYTES // inputs[0].nbytes))
    latency = classifier.measure_latency(np.asarray(inputs[:_LATENCY_SAMPLES]))
    numbers = np.asarray(class_numbers, np.int64)
    matrix = np.zeros((class_count, class_count), np.int64)
    busy_s = 0.0
    for start in range(0, len(inputs), batch_size):
        # Read the samples before the clock starts: the disk is no part of the throughput.
        batch = np.array(inputs[start : start + batch_size])
        started = time.perf_counter()
        predicted = classifier.classify(batch)
        busy_s += time.perf_counter() - started
        matrix += confusion_matrix(numbers[outputs[start : start + batch_size]], predicted, class_count)
        on_progress(start + len(batch), len(inputs))
    quality = measure_quality(matrix)
    metrics = _metrics(quality, latency, len(inputs) / busy_s, size_bytes)
    return Measurement(matrix, quality, latency, batch_size, metrics)


def _check(classifier: Classifier, inputs: NDArray[np.float32], class_count: int) -> None:
    if not len(inputs):
        raise ToolError("There are no samples to measure with; the tensors must hold at least one.")
    if classifier.sample_shape != inputs.shape[1:]:
        raise ToolError(f"The samples have the shape {inputs.shape[1:]}; the model needs {classifier.sample_shape}.")
    if classifier.class_count != class_count:
        raise ToolError(
            f"The model returns {classifier.class_count} scores per sample; it must return one for each of its"
            f" {class_count} classes."
        )


def _metrics(quality: Quality, latency: Latency, throughput_per_s: float, size_bytes: int) -> dict[str, float]:
    return {
        "accuracy": quality.accuracy,
        "macro_precision": quality.macro_precision,
        "macro_recall": quality.macro_recall,
        "macro_f1": quality.macro_f1,
        "lowest_recall": float(quality.recall[quality.support > 0].min()),
        "latency_ms": latency.median_ms,
        "latency_p95_ms": latency.p95_ms,
        "throughput_per_s": throughput_per_s,
        "model_size_bytes": size_bytes,
    }
