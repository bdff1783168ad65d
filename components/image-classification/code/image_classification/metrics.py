"""What can be said about predictions: the confusion matrix and everything that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Quality", "confusion_matrix", "measure_quality"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Shares between 0 and 1; the arrays have an entry for each class."""

    accuracy: float
    support: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    macro_precision: float
    macro_recall: float
    macro_f1: float


def confusion_matrix(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how often each class (row) was taken for each class (column)."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def measure_quality(matrix: NDArray[np.int64]) -> Quality:
    """Measure a confusion matrix; what would be 0 / 0 is 0, and averages are over classes that occur."""
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
