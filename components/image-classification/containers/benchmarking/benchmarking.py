"""The benchmarking tool: measures a model with onnxruntime, judges the criteria, and draws the result."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import image_classification  # noqa: F401  # first: it keeps the libraries below quiet
import numpy as np
import onnxruntime
from image_classification.artifacts import Source, Work, write_json
from image_classification.charts import draw_confusion_matrix, draw_per_class
from image_classification.inference import Classifier
from image_classification.measuring import Measurement, measure
from image_classification.models import ModelDescription
from image_classification.tensors import TENSORS, TensorSet, count_labels
from image_classification.verdicts import judge
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError

__all__ = ["create"]

FORMAT = "com.bonseyes.benchmark"
FORMAT_VERSION = 1

Criteria = Sequence[Mapping[str, Any]]


def create(
    artifact: Work,
    *,
    model: Source,
    tensors: Source,
    evaluation_criterias: Criteria = (),
    constraints: Criteria = (),
) -> None:
    """Measure the model and write `report.json` and its pictures."""
    known, samples = ModelDescription.read(model), TensorSet.read(tensors, TENSORS)
    _check_preprocessing(known, samples)
    classifier = Classifier(model.path(known.onnx.path))
    outputs = samples.open(tensors, "outputs")
    measurement = measure(
        classifier,
        samples.open(tensors, "inputs"),
        outputs,
        _class_numbers(known, samples.classes, outputs),
        len(known.classes),
        known.onnx.size,
        lambda done, total: artifact.set_progress(done, total, "samples"),
    )
    criteria = judge(evaluation_criterias, measurement.metrics)
    limits = judge(constraints, measurement.metrics)
    write_json(artifact, "report.json", _report(known, classifier, measurement, criteria, limits))
    draw_confusion_matrix(measurement.matrix, known.classes, artifact.path("confusion-matrix.png"))
    draw_per_class(measurement.quality, known.classes, artifact.path("per-class.png"))
    for name, value in measurement.metrics.items():
        artifact.scalar(name, 0, value)
    _print_verdicts(measurement, [*criteria, *limits])


def _check_preprocessing(model: ModelDescription, samples: TensorSet) -> None:
    differing = [
        f"{key} is {samples.preprocessing.get(key)!r}, but the model needs {value!r}"
        for key, value in model.preprocessing.items()
        if samples.preprocessing.get(key) != value
    ]
    if differing:
        raise ToolError(f"The tensors must have the preprocessing of the model's training: {'; '.join(differing)}.")


def _class_numbers(model: ModelDescription, classes: Sequence[str], outputs: NDArray[np.int64]) -> list[int]:
    """Return the model's number for each class of the samples. The classes may be fewer, or in another order.

    A class that the model does not know gets -1 if it has no samples. Otherwise raise ToolError.
    """
    counts = count_labels(outputs, len(classes))
    numbers = {name: number for number, name in enumerate(model.classes)}
    unknown = [name for name, count in zip(classes, counts, strict=True) if count and name not in numbers]
    if unknown:
        raise ToolError(
            f"The tensors have classes that the model does not know: {', '.join(unknown)};"
            f" it knows {', '.join(model.classes)}."
        )
    return [numbers.get(name, -1) for name in classes]


def _report(
    model: ModelDescription,
    classifier: Classifier,
    measurement: Measurement,
    criteria: list[dict[str, Any]],
    constraints: list[dict[str, Any]],
) -> dict[str, Any]:
    quality = measurement.quality
    columns = zip(model.classes, quality.support, quality.precision, quality.recall, quality.f1, strict=True)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "passed": all(verdict["passed"] for verdict in [*criteria, *constraints]),
        "metrics": measurement.metrics,
        "evaluation_criterias": criteria,
        "constraints": constraints,
        "per_class": [
            {
                "name": name,
                "support": int(support),
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
            }
            for name, support, precision, recall, f1 in columns
        ],
        "confusion_matrix": {
            "classes": list(model.classes),
            "rows_are": "truth",
            "counts": measurement.matrix.tolist(),
        },
        "latency": asdict(measurement.latency),
        "throughput": {"samples": int(quality.support.sum()), "batch_size": measurement.batch_size},
        "model": {
            "architecture": model.architecture,
            "parameter_count": model.parameter_count,
            "size_bytes": model.onnx.size,
            "sha256": model.onnx.sha256,
        },
        "environment": {
            "onnxruntime": onnxruntime.__version__,
            "provider": "CPUExecutionProvider",
            "threads": classifier.threads,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def _print_verdicts(measurement: Measurement, verdicts: list[dict[str, Any]]) -> None:
    for name, value in measurement.metrics.items():
        print(f"{name}: {value:.6g}")
    for verdict in verdicts:
        print(f"{'passed' if verdict['passed'] else 'FAILED'}: {verdict['name']}: {verdict['reason']}")
