"""The pictures: any number of classes, any names, and counts of nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAIR = np.array([[3, 1], [1, 3]])


def drawn(name: str, path: Path) -> bytes:
    """Return both pictures of two classes, one of which has the name."""
    from image_classification.charts import draw_confusion_matrix, draw_per_class
    from image_classification.metrics import measure_quality

    draw_confusion_matrix(PAIR, [name, "b"], path)
    matrix = path.read_bytes()
    draw_per_class(measure_quality(PAIR), [name, "b"], path)
    return matrix + path.read_bytes()


@pytest.mark.parametrize("classes", [1, 26, 300])
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


def test_names_are_no_formulas(tmp_path: Path) -> None:
    """A `$` is drawn as a `$`: what is between two of them is no formula, and no error where it cannot be one."""
    picture = tmp_path / "picture.png"
    assert drawn("$1_$5", picture) != drawn("15", picture)
    assert drawn("$x$", picture) != drawn("$y$", picture) != drawn("\\$y$", picture)
    drawn(r"$\frac{$ %s {x}", picture)


def test_names_stay_on_one_line(tmp_path: Path) -> None:
    """Line breaks and control characters are drawn as spaces, without a warning about missing glyphs."""
    assert drawn("a\nb\x00\x1b", tmp_path / "picture.png") == drawn("a b  ", tmp_path / "picture.png")
