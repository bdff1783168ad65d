"""Series keep what a chart needs, read on where they stopped, and stay within bounds."""

from __future__ import annotations

from itertools import pairwise

from bonseyes_dagster.model import Point
from bonseyes_dagster.visualization.series import Series, SeriesCache


def lines(start: int, stop: int) -> bytes:
    """Return points whose value is twice their step."""
    return b"".join(b"%d.5 %d %d\n" % (1000 + i, i, 2 * i) for i in range(start, stop))


def test_reads_points_across_pieces_that_split_a_line() -> None:
    """A piece of a stream ends anywhere."""
    text = lines(0, 5)
    series = Series()
    series.feed([text[:7], text[7:8], text[8:]])
    assert series.points(100) == [Point(1000.5 + i, i, 2.0 * i) for i in range(5)]
    assert series.offset == len(text)


def test_reads_on_where_whole_lines_ended() -> None:
    """A half-written last line is read again when it is whole."""
    text = lines(0, 3)
    series = Series()
    series.feed([text[:-4]])
    assert len(series) == 2
    series.feed([text[series.offset :]])
    assert [point.step for point in series.points(10)] == [0, 1, 2]


def test_a_stream_that_breaks_loses_nothing() -> None:
    """What came as whole lines stays, the rest is asked for again."""

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


def test_skips_what_is_no_point() -> None:
    """Nonsense in a metric does not end its chart; nan and inf are values."""
    series = Series()
    series.feed([b"1 0 1\nnonsense\n1 2\n\n1 99999999999999999999 1\n2 1 nan\n3 2 inf\n"])
    assert [point.step for point in series.points(10)] == [0, 1, 2]
    assert str(series.points(10)[1].value) == "nan"


def test_downsampling_keeps_first_and_newest() -> None:
    """A chart shows where a curve began and where it is."""
    series = Series()
    series.feed([lines(0, 1000)])
    points = series.points(11)
    assert len(points) == 11
    assert (points[0].step, points[-1].step) == (0, 999)
    assert [point.step for point in series.points(1)] == [999]
    assert series.points(0) == []


def test_a_very_long_series_is_thinned_evenly_and_keeps_its_end() -> None:
    """However many points there are, memory for one series is bounded."""
    series = Series(points_limit=100)
    series.feed([lines(0, 12_345)])
    points = series.points(10_000)
    assert 50 <= len(series) <= 100
    assert points[0].step == 0 and points[-1].step == 12_344
    gaps = {b.step - a.step for a, b in pairwise(points[:-1])}
    assert len(gaps) == 1


def test_points_are_sorted_by_step() -> None:
    """TensorBoard expects steps in order, whatever order they were written in."""
    series = Series()
    series.feed([b"1 5 50\n2 1 10\n3 3 30\n"])
    assert [point.step for point in series.points(10)] == [1, 3, 5]
    assert series.last == Point(3.0, 3, 30.0)


def test_the_cache_forgets_the_least_recently_used() -> None:
    """Memory over all series is bounded too."""
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


def test_a_forgotten_series_is_not_accounted_for() -> None:
    """A reading that ends after its series was forgotten changes no account."""
    cache = SeriesCache()
    stranger = Series()
    stranger.feed([lines(0, 10)])
    cache.account(("x",), stranger)
    assert cache.points == 0
