"""TensorBoard's data provider over the artifact API: artifacts are runs, metrics are tags."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tensorboard.data import provider
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata

from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.model import Point
from bonseyes_dagster.visualization import hyperparameters
from bonseyes_dagster.visualization.catalogue import Catalogue, Entry
from bonseyes_dagster.visualization.series import Series, SeriesCache

__all__ = ["ArtifactDataProvider"]

# The time limit for an answer. Series that arrive later come with the next reload.
READ_BUDGET_S = 8.0
# The points in one answer: with very many runs, each run gets fewer.
ANSWER_POINTS = 100_000
_POINTS_AT_LEAST = 10
# The minimum interval between two reads of a growing series.
_FRESH_S = 1.0
_READS_AT_ONCE = 16

Pair = tuple[Entry, str]


class ArtifactDataProvider(provider.DataProvider):  # type: ignore[misc]
    """Scalars and hyperparameters of all artifacts in the catalogue. The project is the only experiment."""

    def __init__(self, catalogue: Catalogue, cache: SeriesCache | None = None) -> None:
        self.catalogue = catalogue
        self.cache = cache or SeriesCache()
        self._reads = ThreadPoolExecutor(_READS_AT_ONCE, "points")

    def __str__(self) -> str:
        return "the artifacts of this project's containers"

    def experiment_metadata(self, ctx: Any = None, *, experiment_id: str) -> provider.ExperimentMetadata:
        """Return the source of the data."""
        return provider.ExperimentMetadata(data_location=str(self))

    def list_plugins(self, ctx: Any = None, *, experiment_id: str) -> Sequence[str]:
        """Return the plugins that have data."""
        return (scalar_metadata.PLUGIN_NAME, hparams_metadata.PLUGIN_NAME) if self.catalogue.entries() else ()

    def list_runs(self, ctx: Any = None, *, experiment_id: str) -> list[provider.Run]:
        """Return the artifacts that have metrics."""
        return [provider.Run(entry.run, entry.run, entry.started_at) for entry in self.catalogue.entries()]

    def list_scalars(
        self, ctx: Any = None, *, experiment_id: str, plugin_name: str, run_tag_filter: Any = None
    ) -> dict[str, dict[str, provider.ScalarTimeSeries]]:
        """Return the metrics of every artifact, without requests for their points."""
        result: dict[str, dict[str, provider.ScalarTimeSeries]] = {}
        for entry, tag in self._pairs(plugin_name, run_tag_filter):
            result.setdefault(entry.run, {})[tag] = _SCALAR
        return result

    def read_scalars(
        self,
        ctx: Any = None,
        *,
        experiment_id: str,
        plugin_name: str,
        downsample: int | None = None,
        run_tag_filter: Any = None,
    ) -> dict[str, dict[str, list[provider.ScalarDatum]]]:
        """Return the points of the series that pass the filter, about `downsample` of each."""
        pairs = list(self._pairs(plugin_name, run_tag_filter))
        share = max(ANSWER_POINTS // max(len(pairs), 1), _POINTS_AT_LEAST)
        count = min(1000 if downsample is None else downsample, share)
        result: dict[str, dict[str, list[provider.ScalarDatum]]] = {}
        for (entry, tag), series in self._read(pairs):
            points = series.points(count)
            if points:
                result.setdefault(entry.run, {})[tag] = [_datum(point) for point in points]
        return result

    def read_last_scalars(
        self, ctx: Any = None, *, experiment_id: str, plugin_name: str, run_tag_filter: Any = None
    ) -> dict[str, dict[str, provider.ScalarDatum]]:
        """Return the newest point of each series; without a filter, only of artifacts in the hyperparameter table."""
        pairs = self._pairs(plugin_name, run_tag_filter)
        if run_tag_filter is None:
            shown = {entry.run for entry in self._with_parameters()}
            pairs = (pair for pair in pairs if pair[0].run in shown)
        result: dict[str, dict[str, provider.ScalarDatum]] = {}
        for (entry, tag), series in self._read(list(pairs)):
            if series.last is not None:
                result.setdefault(entry.run, {})[tag] = _datum(series.last)
        return result

    def list_tensors(
        self, ctx: Any = None, *, experiment_id: str, plugin_name: str, run_tag_filter: Any = None
    ) -> dict[str, dict[str, Any]]:
        """Return nothing: the artifact API has scalars only."""
        return {}

    def read_tensors(
        self,
        ctx: Any = None,
        *,
        experiment_id: str,
        plugin_name: str,
        downsample: int | None = None,
        run_tag_filter: Any = None,
    ) -> dict[str, dict[str, Any]]:
        """Return nothing: the artifact API has scalars only."""
        return {}

    def list_hyperparameters(
        self, ctx: Any = None, *, experiment_ids: Sequence[str], limit: int | None = None
    ) -> provider.ListHyperparametersResult:
        """Return the parameters of the newest artifacts."""
        return hyperparameters.list_all(self._with_parameters(), limit)

    def read_hyperparameters(
        self,
        ctx: Any = None,
        *,
        experiment_ids: Sequence[str],
        filters: Any = None,
        sort: Any = None,
        hparams_to_include: Any = None,
    ) -> list[provider.HyperparameterSessionGroup]:
        """Return the parameters of each artifact; every artifact is a separate session group."""
        return hyperparameters.read(self._with_parameters(), filters or (), sort or (), hparams_to_include)

    def _pairs(self, plugin_name: str, run_tag_filter: Any) -> Iterator[Pair]:
        if plugin_name != scalar_metadata.PLUGIN_NAME:
            return
        runs = run_tag_filter.runs if run_tag_filter else None
        tags = run_tag_filter.tags if run_tag_filter else None
        for entry in self._entries(runs):
            yield from ((entry, tag) for tag in entry.tags if tags is None or tag in tags)

    def _entries(self, runs: frozenset[str] | None) -> list[Entry]:
        if runs is None:
            return self.catalogue.entries()
        self.catalogue.keep_following()
        return [entry for entry in map(self.catalogue.get, runs) if entry is not None]

    def _read(self, pairs: list[Pair]) -> list[tuple[Pair, Series]]:
        """Read on in each series for up to READ_BUDGET_S and return them; late reads go on in the background."""
        found = [(pair, self.cache.get((*pair[0].identity, pair[1]))) for pair in pairs]
        late = []
        # Newest first, as in the catalogue.
        for (entry, tag), series in reversed(found):
            if not series.is_whole and not series.is_reading and time.monotonic() - series.read_at > _FRESH_S:
                series.is_reading = True
                late.append(self._reads.submit(self._read_on, entry, tag, series))
        futures.wait(late, READ_BUDGET_S)
        return found

    def _read_on(self, entry: Entry, tag: str, series: Series) -> None:
        is_final = entry.status.is_final
        try:
            with series.lock:
                series.feed(entry.source.lines(entry.status.name, tag, series.offset))
                series.is_whole = is_final
        except BonseyesError:
            pass  # down or deleted: the chart keeps its points until the next reload
        finally:
            series.read_at = time.monotonic()
            series.is_reading = False
        self.cache.account((*entry.identity, tag), series)

    def _with_parameters(self) -> list[Entry]:
        newest = hyperparameters.newest(self.catalogue.entries())
        unknown = [self._reads.submit(hyperparameters.fetch, entry) for entry in newest if entry.parameters is None]
        futures.wait(unknown, READ_BUDGET_S)
        return [entry for entry in newest if entry.parameters]


def _datum(point: Point) -> provider.ScalarDatum:
    return provider.ScalarDatum(point.step, point.time, point.value)


# TensorBoard's plugins use only one of these values, the plugin content, which is empty.
_SCALAR = provider.ScalarTimeSeries(max_step=0, max_wall_time=0.0, plugin_content=b"", description="", display_name="")
