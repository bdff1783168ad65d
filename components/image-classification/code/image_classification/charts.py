"""Draws the PNG pictures of a benchmark: the confusion matrix, and the precision and recall of each class.

The benchmarking tool calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from image_classification.metrics import Quality

__all__ = ["draw_confusion_matrix", "draw_per_class"]

_INK = "#1f2933"
_FAINT = "#7b8794"
_LINE = "#e4e7eb"
_RECALL = "#2563a8"
_PRECISION = "#e08a3c"
_BLUES = LinearSegmentedColormap.from_list("benchmark", ["#f5f8fb", "#b8d3ea", "#5b9bd0", "#2563a8", "#143d6b"])
_DPI = 150
# With more classes, nobody can read a number in each cell or a name at each row.
_MOST_NUMBERS = 26
_MOST_NAMES = 60
_MOST_ROWS = 120
_LONGEST_NAME = 18
# Names of classes are plain text. By default matplotlib draws text between two `$` as a formula, or fails.
_PLAIN_TEXT = {"text.parse_math": False, "text.usetex": False}


@rc_context(_PLAIN_TEXT)
def draw_confusion_matrix(matrix: NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """Draw true classes as rows and predicted classes as columns. A colour is a share of its row, a number a count."""
    side = float(np.clip(0.52 * len(classes) + 2.2, 5.2, 16))
    # The names are at the left and, tilted, at the bottom.
    names = 0.08 * max(len(_short(name)) for name in classes)
    figure = _figure(side + 0.7 + names, side + 0.7 * names)
    axes = figure.add_subplot()
    support = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    # Not linear: the colours must show the few errors of a good model.
    image = axes.imshow(shares, cmap=_BLUES, norm=PowerNorm(0.45, 0, 1))
    right, total = int(matrix.diagonal().sum()), int(matrix.sum())
    _title(axes, "Confusion matrix", f"{right:,} of {total:,} samples on the diagonal ({right / max(1, total):.2%})")
    axes.set_xlabel("predicted class", color=_FAINT)
    axes.set_ylabel("true class", color=_FAINT)
    _name_ticks(axes, classes)
    if len(classes) <= _MOST_NUMBERS:
        _write_counts(axes, matrix, shares)
    _grid_between_cells(axes, len(classes))
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03, format=lambda share, _: f"{share:.0%}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=_FAINT)
    bar.set_label("share of the true class", color=_FAINT)
    _save(figure, path)


@rc_context(_PLAIN_TEXT)
def draw_per_class(quality: Quality, classes: Sequence[str], path: Path) -> None:
    """Draw two bars for each class, precision and recall."""
    figure = _figure(8, float(np.clip(0.46 * len(classes) + 1.9, 3.6, 24)))
    axes = figure.add_subplot()
    rows = np.arange(len(classes))
    for offset, values, colour, label in (
        (-0.19, quality.precision, _PRECISION, "precision"),
        (0.19, quality.recall, _RECALL, "recall"),
    ):
        axes.barh(rows + offset, values, 0.34, color=colour, label=label)
        if len(classes) <= _MOST_NUMBERS:
            _write_values(axes, rows + offset, values, quality.support)
    axes.axvline(quality.accuracy, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    _title(axes, "Precision and recall of each class", f"dashed: accuracy, {quality.accuracy:.2%}")
    places = _places(len(classes), _MOST_ROWS)
    axes.set_yticks(places, [_short(classes[place]) for place in places], color=_INK)
    axes.set_xlim(0, 1.09)
    axes.set_ylim(len(classes) - 0.45, -0.55)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks], color=_FAINT)
    axes.grid(axis="x", color=_LINE)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, labelcolor=_INK)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    """Return a new figure, made without pyplot: no global state, no display."""
    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15)
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _title(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=_INK, pad=26)
    axes.annotate(
        below, (0, 1), (0, 10), "axes fraction", textcoords="offset points", color=_FAINT, fontsize=10, va="bottom"
    )
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name_ticks(axes: Axes, classes: Sequence[str]) -> None:
    places = _places(len(classes), _MOST_NAMES)
    names = [_short(classes[place]) for place in places]
    tilted = max(map(len, names)) > 3
    axes.set_yticks(places, names, color=_INK)
    axes.set_xticks(places, names, color=_INK, rotation=45 if tilted else 0, ha="right" if tilted else "center")


def _places(count: int, most: int) -> range:
    """Return the indexes of at most `most` classes, at even distances: there is room for these names."""
    return range(0, count, -(-count // most))


def _short(name: str) -> str:
    """Return the name in one line of characters that can be drawn."""
    line = "".join(character if character.isprintable() else " " for character in name)
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"


def _write_counts(axes: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.25 else _INK
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=9)


def _grid_between_cells(axes: Axes, count: int) -> None:
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5 if count <= _MOST_NUMBERS else 0.3)
    axes.tick_params(which="minor", length=0)


def _write_values(
    axes: Axes, rows: NDArray[np.floating[Any]], values: NDArray[np.float64], support: NDArray[np.int64]
) -> None:
    # The white box hides the accuracy line behind the digits.
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    for row, value, count in zip(rows, values, support, strict=True):
        text = f"{value:.1%}" if count else "no samples"
        axes.text(value + 0.008, row, text, va="center", fontsize=7.5, color=_FAINT, bbox=box)


def _save(figure: Figure, path: Path) -> None:
    # Leave out the software's version: equal pictures then give equal files.
    figure.savefig(path, format="png", metadata={"Software": None})
