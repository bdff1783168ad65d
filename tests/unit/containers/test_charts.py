"""The pictures: any number of classes, any names, and counts of nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.mark.parametrize("classes", [1, 26, 100])
def test_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    """Both are drawn without a warning and within sizes that a screen can show."""
    from image_classification.charts import draw_confusion_matrix, draw_per_class
    from image_classification.metrics import measure_quality

    matrix = np.random.default_rng(0).integers(0, 9, (classes, classes))
    matrix[0] = 0  # a class without samples
    names = [f"a rather long name of class {number}" for number in range(classes)]
    draw_confusion_matrix(matrix, names, tmp_path / "matrix.png")
    draw_per_class(measure_quality(matrix), names, tmp_path / "bars.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert max(image.size) < 4500


def test_equal_numbers_are_equal_files(tmp_path: Path) -> None:
    """A picture holds no date and no version, so that equal benchmarks have equal digests."""
    from image_classification.charts import draw_confusion_matrix

    for name in ("one", "other"):
        draw_confusion_matrix(np.eye(3, dtype=np.int64), ["a", "b", "c"], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
