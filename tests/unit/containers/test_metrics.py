"""Metrics, compared with scikit-learn's, and verdicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_matrix
from sklearn.metrics import precision_recall_fscore_support


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_metrics_equal_those_of_scikit_learn(classes: int) -> None:
    """This is also true for a class that is never predicted."""
    from image_classification.metrics import confusion_matrix, measure_quality

    random = np.random.default_rng(classes)
    truth, predicted = random.integers(0, classes, 300), random.integers(0, max(2, classes - 1), 300)
    matrix = confusion_matrix(truth, predicted, classes)
    assert np.array_equal(matrix, reference_matrix(truth, predicted, labels=range(classes)))
    quality = measure_quality(matrix)
    expected = precision_recall_fscore_support(truth, predicted, labels=range(classes), zero_division=0)
    for found, wanted in zip((quality.precision, quality.recall, quality.f1, quality.support), expected, strict=True):
        assert np.allclose(found, wanted)
    macro = precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)
    assert np.allclose((quality.macro_precision, quality.macro_recall, quality.macro_f1), macro[:3])


def test_averages_leave_out_classes_that_do_not_occur() -> None:
    """Such a class has no samples and no predictions."""
    from image_classification.metrics import measure_quality

    quality = measure_quality(np.array([[4, 0, 0], [0, 4, 0], [0, 0, 0]]))
    assert quality.macro_recall == quality.macro_precision == quality.macro_f1 == 1


@pytest.mark.parametrize(
    ("criterion", "passed", "reason"),
    [
        ({"metric": "accuracy", "minimum": 0.9}, True, "accuracy is 0.9, at least 0.9."),
        ({"metric": "accuracy", "minimum": 0.91}, False, "accuracy is 0.9, below the minimum of 0.91."),
        ({"metric": "latency_ms", "maximum": 2}, True, "latency_ms is 2, at most 2."),
        ({"metric": "latency_ms", "maximum": 1}, False, "latency_ms is 2, above the maximum of 1."),
        (
            {"metric": "latency_ms", "minimum": 1, "maximum": 3},
            True,
            "latency_ms is 2, at least 1 and at most 3.",
        ),
        ({"metric": "latency_ms"}, False, "latency_ms has no bound; give a minimum or a maximum."),
        ({"metric": "size", "minimum": 1}, False, "There is no metric `size`; the metrics are accuracy, latency_ms."),
    ],
)
def test_each_verdict_has_a_reason(criterion: dict[str, Any], passed: bool, reason: str) -> None:
    """A value that equals its bound passes."""
    from image_classification.verdicts import judge

    (verdict,) = judge([criterion], {"accuracy": 0.9, "latency_ms": 2.0})
    assert (verdict["passed"], verdict["reason"]) == (passed, reason)
