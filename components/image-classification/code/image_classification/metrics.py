"""Computes the confusion matrix of predictions, and accuracy, precision, recall and F1 from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Quality", "confusion_matrix", "measure_quality"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Metrics from 0 to 1, and `support`, a number of samples. The arrays have an entry for each class."""

    accuracy: float
    support: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    macro_precision: float
    macro_recall: float
    macro_f1: float


def confusion_matrix(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the number of samples for each true class (row) and each predicted class (column)."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def measure_quality(matrix: NDArray[np.int64]) -> Quality:
    """Return the metrics of a confusion matrix. 0 / 0 counts as 0. Averages leave out classes that do not occur."""
    right = matrix.diagonal()
    support, claimed = matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall = _share(right, claimed), _share(right, support)
    f1 = _share(2 * right, support + claimed)
    occurs = (support + claimed) > 0

    def average(values: NDArray[np.float64]) -> float:
        return float(values[occurs].mean()) if occurs.any() else 0.0

    return Quality(
        accuracy=float(right.sum() / max(1, matrix.sum())),
        support=support,
        precision=precision,
        recall=recall,
        f1=f1,
        macro_precision=average(precision),
        macro_recall=average(recall),
        macro_f1=average(f1),
    )


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
