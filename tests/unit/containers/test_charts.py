"""The pictures of a benchmark: any number of classes, any names, and classes without samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAIR = np.array([[3, 1], [1, 3]])


def draw(name: str, path: Path) -> bytes:
    """Draw both pictures for two classes, `name` and `b`. Return their bytes."""
    from image_classification.charts import draw_confusion_matrix, draw_per_class
    from image_classification.metrics import measure_quality

    draw_confusion_matrix(PAIR, [name, "b"], path)
    matrix = path.read_bytes()
    draw_per_class(measure_quality(PAIR), [name, "b"], path)
    return matrix + path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 26, 300])
def test_pictures_of_any_number_of_classes_fit_a_screen(classes: int, tmp_path: Path) -> None:
    """There is no warning from matplotlib."""
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


def test_equal_numbers_give_equal_files(tmp_path: Path) -> None:
    """A picture holds no date and no version, so equal benchmarks have equal digests."""
    from image_classification.charts import draw_confusion_matrix

    for name in ("one", "other"):
        draw_confusion_matrix(np.eye(3, dtype=np.int64), ["a", "b", "c"], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_names_with_dollar_signs_are_drawn_as_text(tmp_path: Path) -> None:
    """By default matplotlib draws text between two `$` as a formula, and fails if it is not a valid one."""
    picture = tmp_path / "picture.png"
    assert draw("$1_$5", picture) != draw("15", picture)
    assert draw("$x$", picture) != draw("$y$", picture) != draw("\\$y$", picture)
    draw(r"$\frac{$ %s {x}", picture)


def test_control_characters_in_names_are_drawn_as_spaces(tmp_path: Path) -> None:
    """A name stays on one line, and matplotlib does not warn about missing glyphs."""
    assert draw("a\nb\x00\x1b", tmp_path / "picture.png") == draw("a b  ", tmp_path / "picture.png")
