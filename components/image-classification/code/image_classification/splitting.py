"""Decides which samples validate a training: the same share of each class, drawn by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError

__all__ = ["draw_validation"]

_FEWEST = 2


def draw_validation(labels: NDArray[np.int64], classes: Sequence[str], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Return a mask of the samples to validate with: `fraction` of each class, one at least on either side.

    ToolError that names the classes with too few samples for that.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if len(counts) > len(classes):
        raise ToolError(f"There are labels up to {len(counts) - 1}, but only {len(classes)} classes.")
    too_few = [f"{name} ({count})" for name, count in zip(classes, counts, strict=True) if count < _FEWEST]
    if too_few:
        raise ToolError(
            f"Each class needs at least {_FEWEST} samples, one to train and one to validate with;"
            f" too few have: {', '.join(too_few)}."
        )
    random = np.random.default_rng(seed)
    mask = np.zeros(len(labels), np.bool_)
    for label, count in enumerate(counts):
        taken = min(max(1, round(fraction * int(count))), int(count) - 1)
        mask[random.permutation(np.flatnonzero(labels == label))[:taken]] = True
    return mask
