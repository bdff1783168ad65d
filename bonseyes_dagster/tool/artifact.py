"""The object that a tool's function gets: it gives the output folder and takes progress and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from bonseyes_dagster.model import Progress
from bonseyes_dagster.tool.artifacts.metrics import MetricsWriter
from bonseyes_dagster.tool.artifacts.progress import ProgressWriter

__all__ = ["Artifact"]

_T = TypeVar("_T")


class Artifact:
    """The artifact that the tool makes: the first argument of `create`."""

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        *,
        output: Path,
        metrics: MetricsWriter,
        progress: ProgressWriter,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.folder = output
        self._metrics = metrics
        self._progress = progress

    def path(self, relative: str) -> Path:
        """Return the path for the output file `relative` (with forward slashes), and make its folders."""
        pure = PurePosixPath(relative)
        if pure.is_absolute() or not pure.parts or ".." in pure.parts:
            raise ValueError(f"{relative!r} is not a path inside of the artifact.")
        path = self.folder / pure
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def scalar(self, name: str, step: int, value: float) -> None:
        """Add a point to the scalar metric `name`; clients can read it at once."""
        self._metrics.add(name, step, value)

    def set_progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
        """Report that `done` of `total` `unit`s are done."""
        self._progress.set(Progress(_plain(done), _plain(total), unit or None, message or None))

    def progress(
        self, iterable: Iterable[_T], *, total: float | None = None, unit: str = "", message: str = ""
    ) -> Iterator[_T]:
        """Yield from `iterable` and report the progress; `total` is by default its length, if it has one."""
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        self.set_progress(0, total, unit, message)
        for done, item in enumerate(iterable, 1):
            yield item
            self.set_progress(done, total, unit, message)
        self._progress.flush()


def _plain(number: float | None) -> float | None:
    """Return `number` as a number of Python; it may come from NumPy or another library."""
    if number is None or isinstance(number, int | float):
        return number
    return float(number)
