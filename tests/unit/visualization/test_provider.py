"""The data for TensorBoard from the artifacts of real HTTP servers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tensorboard import errors
from tensorboard.data import provider as tb
from tensorboard.plugins.hparams import metadata as hparams_metadata

from bonseyes_dagster.visualization import catalogue as catalogue_module
from bonseyes_dagster.visualization.catalogue import Catalogue
from bonseyes_dagster.visualization.provider import ArtifactDataProvider
from tests.unit.visualization.artifact_server import ArtifactServer
from tests.waiting import until

SCALARS = {"experiment_id": "", "plugin_name": "scalars"}


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    """Yield a tool container."""
    with ArtifactServer() as server:
        yield server


@pytest.fixture
def board(server: ArtifactServer) -> ArtifactDataProvider:
    """Return a provider for the server and for a container that is down."""
    return make({"training": server.url, "down": "http://127.0.0.1:1"})


def make(addresses: dict[str, str]) -> ArtifactDataProvider:
    """Return a provider that refreshes often."""
    return ArtifactDataProvider(Catalogue(lambda: addresses, reload_s=0.05))


def test_artifacts_with_metrics_are_runs(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """Artifacts without points, and containers that are down, are left out."""
    server.add("cnn")
    server.add("silent", "completed")
    server.add("waiting", "queued")
    server.append("cnn", "loss", 3.0, 2.0)
    server.append("cnn", "accuracy", 0.5)
    (run,) = board.list_runs(experiment_id="")
    assert (run.run_id, run.run_name) == ("training/cnn", "training/cnn")
    assert run.start_time == pytest.approx(time.time(), abs=60)
    assert {run: set(tags) for run, tags in board.list_scalars(**SCALARS).items()} == {
        "training/cnn": {"loss", "accuracy"}
    }
    assert set(board.list_plugins(experiment_id="")) == {"scalars", "hparams"}


def test_runs_of_pipelines_are_shown_too() -> None:
    """A pipeline's metrics are below /runs."""
    with ArtifactServer("runs") as server:
        server.add("first", "completed")
        server.append("first", "accuracy", 0.97)
        board = make({"digits-cnn": server.url})
        assert board.read_scalars(**SCALARS, downsample=10)["digits-cnn/first"]["accuracy"][0].value == 0.97


def test_new_points_are_read(
    server: ArtifactServer, board: ArtifactDataProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read transfers only the new points."""
    monkeypatch.setattr("bonseyes_dagster.visualization.provider._FRESH_S", 0.0)

    def steps() -> list[int]:
        return [datum.step for datum in board.read_scalars(**SCALARS, downsample=100)["training/cnn"]["loss"]]

    server.add("cnn")
    server.append("cnn", "loss", 3.0, 2.0)
    assert steps() == [0, 1]
    server.append("cnn", "loss", 1.0)
    assert steps() == [0, 1, 2]
    series = board.cache.get((*board.catalogue.get("training/cnn").identity, "loss"))  # type: ignore[union-attr]
    assert series.offset == len(server.artifacts["cnn"].metrics["loss"])


def test_final_artifacts_are_read_once(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """Later refreshes request neither their metric names nor their points."""
    for i in range(20):
        server.add(f"a{i}", "completed")
        server.append(f"a{i}", "loss", 1.0)
    for _ in range(3):
        assert len(board.read_scalars(**SCALARS, downsample=10)) == 20
        time.sleep(0.2)
    assert server.asked["artifacts/NAME/metrics"] == 20
    assert server.asked["artifacts/NAME/metrics/loss/scalar"] == 20
    assert server.asked["artifacts"] > 3


def test_a_new_artifact_of_the_same_name_has_a_new_series(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """The points of the deleted artifact must not appear in it."""
    server.add("cnn", "completed")
    server.append("cnn", "loss", 1.0, 2.0, 3.0)
    assert len(board.read_scalars(**SCALARS, downsample=10)["training/cnn"]["loss"]) == 3
    time.sleep(0.005)
    server.add("cnn", "completed")
    server.append("cnn", "loss", 9.0)
    for artifacts in board.catalogue._by_container.values():
        artifacts.listed_at = float("-inf")
    until(lambda: [d.value for d in _loss(board)] == [9.0])


def _loss(board: ArtifactDataProvider) -> list[tb.ScalarDatum]:
    return board.read_scalars(**SCALARS, downsample=10).get("training/cnn", {}).get("loss", [])


def test_a_deleted_artifact_disappears(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """Also when the next listing would start after it."""
    server.add("old", "completed")
    server.add("cnn", "completed")
    server.append("cnn", "loss", 1.0)
    assert _loss(board)
    del server.artifacts["cnn"]
    until(lambda: not board.list_runs(experiment_id=""))


def test_filters_choose_runs_and_tags(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """Only the chosen series are read."""
    for name in ("a", "b"):
        server.add(name, "completed")
        server.append(name, "loss", 1.0)
        server.append(name, "accuracy", 0.5)
    assert len(board.list_runs(experiment_id="")) == 2
    chosen = tb.RunTagFilter(runs=["training/a", "training/none", "none"], tags=["loss", "none"])
    result = board.read_scalars(**SCALARS, downsample=10, run_tag_filter=chosen)
    assert {run: list(tags) for run, tags in result.items()} == {"training/a": ["loss"]}
    assert server.asked["artifacts/NAME/metrics/accuracy/scalar"] == 0
    assert board.read_scalars(experiment_id="", plugin_name="other", downsample=10) == {}


def test_last_scalars_are_the_newest_points(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """One point for each series."""
    server.add("a", "completed", epochs=3)
    server.append("a", "loss", 3.0, 2.0, 1.0)
    assert board.read_last_scalars(**SCALARS)["training/a"]["loss"].value == 1.0


def test_many_runs_share_the_points_of_an_answer(
    server: ArtifactServer, board: ArtifactDataProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer stays small: with many runs, each gets fewer points."""
    monkeypatch.setattr("bonseyes_dagster.visualization.provider.ANSWER_POINTS", 300)
    for i in range(10):
        server.add(f"a{i}", "completed")
        server.append(f"a{i}", "loss", *map(float, range(200)))
    result = board.read_scalars(**SCALARS, downsample=1000)
    assert {len(tags["loss"]) for tags in result.values()} == {30}


def test_a_container_may_change_its_address(server: ArtifactServer) -> None:
    """After a restart, a container may have another port."""
    addresses = {"training": server.url}
    board = make(addresses)
    server.add("a", "completed")
    server.append("a", "loss", 1.0)
    assert len(board.list_runs(experiment_id="")) == 1
    with ArtifactServer() as other:
        other.artifacts = server.artifacts
        addresses["training"] = other.url
        server.add("b")
        server.append("b", "loss", 1.0)
        until(lambda: len(board.list_runs(experiment_id="")) == 2)
        assert other.asked["artifacts/NAME/metrics"] > 0
    addresses.clear()
    until(lambda: not board.list_runs(experiment_id=""))


def test_without_tensorboard_requests_no_container_is_asked(
    server: ArtifactServer, board: ArtifactDataProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refreshing thread ends once TensorBoard is closed."""
    monkeypatch.setattr(catalogue_module, "IDLE_S", 0.1)
    server.add("a")
    board.list_runs(experiment_id="")
    until(lambda: not board.catalogue._follower.is_alive())  # type: ignore[union-attr]
    asked = server.asked.total()
    time.sleep(0.3)
    assert server.asked.total() == asked
    server.append("a", "loss", 1.0)
    assert len(board.list_runs(experiment_id="")) == 1


def test_parameters_are_hyperparameters(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """Numbers have an interval, strings and booleans a set of values; lists and missing values are left out."""
    server.add("a", "completed", epochs=3, model="cnn", augment=True, criteria=[1], seed=None)
    server.add("b", "completed", epochs=5, model="mlp", augment=True)
    for name in ("a", "b"):
        server.append(name, "loss", 1.0)
    result = board.list_hyperparameters(experiment_ids=[""])
    assert [(h.hyperparameter_name, h.domain, h.differs) for h in result.hyperparameters] == [
        ("epochs", (3.0, 5.0), True),
        ("model", ["cnn", "mlp"], True),
        ("augment", [True], False),
    ]
    assert {group.root.run for group in result.session_groups} == {"training/a", "training/b"}
    assert board.list_tensors(experiment_id="", plugin_name=hparams_metadata.PLUGIN_NAME) == {}
    assert server.asked["artifacts/NAME/input-parameters"] == 2


@pytest.mark.parametrize(
    ("kind", "rule", "passing"),
    [("INTERVAL", (4.0, 9.0), ["b"]), ("DISCRETE", [3.0], ["a"]), ("REGEX", "^[35]", ["a", "b"])],
)
def test_hyperparameters_are_filtered(
    server: ArtifactServer, board: ArtifactDataProvider, kind: str, rule: object, passing: list[str]
) -> None:
    """By range, by value, by pattern; an artifact without the parameter never passes."""
    server.add("a", "completed", epochs=3)
    server.add("b", "completed", epochs=5)
    server.add("c", "completed", other=5)
    for name in "abc":
        server.append(name, "loss", 1.0)
    filters = [tb.HyperparameterFilter("epochs", tb.HyperparameterFilterType[kind], rule)]  # type: ignore[arg-type]
    sort = [tb.HyperparameterSort("epochs", tb.HyperparameterSortDirection.ASCENDING)]
    groups = board.read_hyperparameters(experiment_ids=[""], filters=filters, sort=sort, hparams_to_include=[])
    assert [group.root.run for group in groups] == [f"training/{name}" for name in passing]
    assert {value.hyperparameter_name for group in groups for value in group.hyperparameter_values} == {"epochs"}


@pytest.mark.timeout(10)
def test_filters_are_matched_in_linear_time(server: ArtifactServer, board: ArtifactDataProvider) -> None:
    """In Python's `re`, the first filter would block a thread for ever; look-around is refused."""
    server.add("a", "completed", text="a" * 5000 + "!")
    server.append("a", "loss", 1.0)

    def matches(pattern: str) -> int:
        filters = [tb.HyperparameterFilter("text", tb.HyperparameterFilterType.REGEX, pattern)]
        return len(board.read_hyperparameters(experiment_ids=[""], filters=filters))

    assert (matches("^(a+)+$"), matches("^(a+)+!$")) == (0, 1)
    with pytest.raises(errors.InvalidArgumentError, match="not a regular expression"):
        matches("(?=a)")


def test_hyperparameters_are_sorted_and_mixed_types_are_text(
    server: ArtifactServer, board: ArtifactDataProvider
) -> None:
    """Also in descending order; a name with numbers and strings becomes text."""
    for name, size in (("a", 3), ("b", "large"), ("c", 1)):
        server.add(name, "completed", size=size)
        server.append(name, "loss", 1.0)
    sort = [tb.HyperparameterSort("size", tb.HyperparameterSortDirection.DESCENDING)]
    groups = board.read_hyperparameters(experiment_ids=[""], sort=sort)
    assert [group.hyperparameter_values[0].value for group in groups] == ["large", "3", "1"]
