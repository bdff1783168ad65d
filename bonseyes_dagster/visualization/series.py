"""The points of scalar metrics, in a fixed amount of memory. Each read continues where the last one stopped."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from bonseyes_dagster.errors import UnexpectedAnswerError
from bonseyes_dagster.formats.metric_lines import parse_point
from bonseyes_dagster.model import Point

__all__ = ["Series", "SeriesCache"]

# A chart is about 1,000 pixels wide: with 10 points for each pixel, users see no difference.
SERIES_POINTS = 10_000
CACHE_POINTS = 2_000_000
_LINE_LIMIT_BYTES = 1 << 20
# The memory of an empty series, in points: it limits the number of short series, too.
_OVERHEAD_POINTS = 20


class Series:
    """One metric of one artifact: every `stride`-th point, the newest point, and the offset of the next read.

    A caller of `feed` must hold `lock`.
    """

    def __init__(self, points_limit: int = SERIES_POINTS) -> None:
        self.lock = threading.Lock()
        self.offset = 0
        self.is_whole = False
        self.is_reading = False
        self.read_at = float("-inf")
        self._limit = points_limit
        self._stride = 1
        self._seen = 0
        self._times = array("d")
        self._steps = array("q")
        self._values = array("d")
        self._last: Point | None = None

    def __len__(self) -> int:
        return len(self._times)

    @property
    def last(self) -> Point | None:
        """Return the newest point."""
        return self._last

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Add the points of the text from `offset` on; only complete lines advance the offset."""
        rest = b""
        for piece in pieces:
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            if len(rest) > _LINE_LIMIT_BYTES:
                raise UnexpectedAnswerError(f"A line of a metric has more than {_LINE_LIMIT_BYTES} bytes.")
            for line in lines:
                self.offset += len(line) + 1
                self._add(line)

    def _add(self, line: bytes) -> None:
        point = parse_point(line)
        if point is None:
            return  # the chart leaves this line out
        if self._seen % self._stride == 0:
            self._append(point)
        self._last = point
        self._seen += 1

    def _append(self, point: Point) -> None:
        self._steps.append(point.step)
        self._times.append(point.time)
        self._values.append(point.value)
        if len(self._times) >= self._limit:
            self._stride *= 2
            self._times, self._steps, self._values = self._times[::2], self._steps[::2], self._values[::2]

    def points(self, count: int) -> list[Point]:
        """Return about `count` points, evenly spread and sorted by step, with the first and the newest point."""
        size = len(self._times)
        if not size or count < 1:
            return []
        indices: Iterable[int] = range(size)
        if size > count:
            indices = sorted({round(i * (size - 1) / max(count - 1, 1)) for i in range(count)})
        points = [Point(self._times[i], self._steps[i], self._values[i]) for i in indices]
        if self._last is not None and points[-1] != self._last:
            points = [*points[: max(count - 1, 0)], self._last]
        return sorted(points, key=lambda point: point.step)


class SeriesCache:
    """Series by key; removes the least recently used series when all together hold too many points."""

    def __init__(self, points_limit: int = CACHE_POINTS) -> None:
        self._limit = points_limit
        self._lock = threading.Lock()
        self._series: OrderedDict[tuple[str, ...], tuple[Series, int]] = OrderedDict()
        self._points = 0

    @property
    def points(self) -> int:
        """Return the number of points in the cache, with the overhead of each series."""
        return self._points

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        with self._lock:
            return iter(list(self._series))

    def get(self, key: tuple[str, ...]) -> Series:
        """Return the series of `key`; add an empty one if it is missing."""
        with self._lock:
            if key not in self._series:
                self._series[key] = (Series(), 0)
            self._series.move_to_end(key)
            return self._series[key][0]

    def account(self, key: tuple[str, ...], series: Series) -> None:
        """Update the size of `series` in the cache, and remove other series if the cache is full."""
        with self._lock:
            held, points = self._series.get(key, (None, 0))
            if held is not series:
                return
            size = len(series) + _OVERHEAD_POINTS
            self._series[key] = (series, size)
            self._points += size - points
            while self._points > self._limit and len(self._series) > 1:
                _, (_, freed) = self._series.popitem(last=False)
                self._points -= freed
