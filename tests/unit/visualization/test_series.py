"""Series keep the points for a chart, continue reading at the right offset, and stay within their limits."""

from __future__ import annotations

from itertools import pairwise

from bonseyes_dagster.model import Point
from bonseyes_dagster.visualization.series import Series, SeriesCache


def lines(start: int, stop: int) -> bytes:
    """Return lines of points whose value is twice their step."""
    return b"".join(b"%d.5 %d %d\n" % (1000 + i, i, 2 * i) for i in range(start, stop))


def test_a_line_may_be_split_between_pieces() -> None:
    """A piece of a stream can end anywhere."""
    text = lines(0, 5)
    series = Series()
    series.feed([text[:7], text[7:8], text[8:]])
    assert series.points(100) == [Point(1000.5 + i, i, 2.0 * i) for i in range(5)]
    assert series.offset == len(text)


def test_reading_continues_after_the_last_complete_line() -> None:
    """An incomplete last line is read again when it is complete."""
    text = lines(0, 3)
    series = Series()
    series.feed([text[:-4]])
    assert len(series) == 2
    series.feed([text[series.offset :]])
    assert [point.step for point in series.points(10)] == [0, 1, 2]


def test_a_broken_stream_loses_no_points() -> None:
    """The complete lines stay; the next read gets the rest."""

    def broken() -> object:
        yield text[:-4]
        raise ConnectionError

    text = lines(0, 3)
    series = Series()
    try:
        series.feed(broken())  # type: ignore[arg-type]
    except ConnectionError:
        series.feed([text[series.offset :]])
    assert [point.step for point in series.points(10)] == [0, 1, 2]


def test_lines_that_are_not_points_are_skipped() -> None:
    """A wrong line does not end the chart; nan and inf are values."""
    series = Series()
    series.feed([b"1 0 1\nnonsense\n1 2\n\n1 99999999999999999999 1\n2 1 nan\n3 2 inf\n"])
    assert [point.step for point in series.points(10)] == [0, 1, 2]
    assert str(series.points(10)[1].value) == "nan"


def test_downsampling_keeps_first_and_newest() -> None:
    """A chart shows the first and the newest point of a curve."""
    series = Series()
    series.feed([lines(0, 1000)])
    points = series.points(11)
    assert len(points) == 11
    assert (points[0].step, points[-1].step) == (0, 999)
    assert [point.step for point in series.points(1)] == [999]
    assert series.points(0) == []


def test_a_very_long_series_is_thinned_evenly_and_keeps_its_end() -> None:
    """The memory of one series is limited, however many points there are."""
    series = Series(points_limit=100)
    series.feed([lines(0, 12_345)])
    points = series.points(10_000)
    assert 50 <= len(series) <= 100
    assert points[0].step == 0 and points[-1].step == 12_344
    gaps = {b.step - a.step for a, b in pairwise(points[:-1])}
    assert len(gaps) == 1


def test_points_are_sorted_by_step() -> None:
    """TensorBoard expects steps in order, whatever the order of the lines."""
    series = Series()
    series.feed([b"1 5 50\n2 1 10\n3 3 30\n"])
    assert [point.step for point in series.points(10)] == [1, 3, 5]
    assert series.last == Point(3.0, 3, 30.0)


def test_the_cache_removes_the_least_recently_used_series() -> None:
    """The memory of all series together is limited, too."""
    cache = SeriesCache(points_limit=250)
    for name in "abc":
        series = cache.get((name,))
        series.feed([lines(0, 80)])
        cache.account((name,), series)
        cache.get(("a",))
    assert list(cache) == [("c",), ("a",)]
    assert cache.points == 200
    assert len(cache.get(("a",))) == 80
    assert len(cache.get(("b",))) == 0


def test_a_removed_series_does_not_count() -> None:
    """A read that ends after the removal of its series does not change the total."""
    cache = SeriesCache()
    stranger = Series()
    stranger.feed([lines(0, 10)])
    cache.account(("x",), stranger)
    assert cache.points == 0
