"""Draws the validation samples of a training set: the same share of each class, at random by seed.

The training-set tool calls it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError
from image_classification.tensors import count_labels

__all__ = ["draw_validation"]

_FEWEST = 2


def draw_validation(labels: NDArray[np.int64], classes: Sequence[str], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return the mask of the validation samples: `fraction` of each class, and at least one sample in either part.

    A class without samples is in neither part.

    Raises:
        ToolError: There are no samples, or a class has only one sample. The message names such classes.
    """
    if not len(labels):
        raise ToolError("The tensors hold no samples; a split needs at least two.")
    counts = count_labels(labels, len(classes))
    too_few = [f"{name} ({count})" for name, count in zip(classes, counts, strict=True) if 0 < count < _FEWEST]
    if too_few:
        raise ToolError(
            f"These classes have too few samples: {', '.join(too_few)};"
            f" a class needs at least {_FEWEST} samples, one to train and one to validate with, or none."
        )
    random = np.random.default_rng(seed)
    mask = np.zeros(len(labels), np.bool_)
    for label in np.flatnonzero(counts):
        count = int(counts[label])
        taken = min(max(1, round(fraction * count)), count - 1)
        mask[random.permutation(np.flatnonzero(labels == label))[:taken]] = True
    return mask
