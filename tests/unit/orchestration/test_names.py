"""Names of runs: given or generated, unique, and the same for every reader."""

from collections.abc import Iterator

import pytest
from dagster import DagsterInstance, DagsterRun, JobDefinition, job, op

from bonseyes_dagster import tags
from bonseyes_dagster.execution.runs import run_names
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.urls import is_name


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as instance:
        yield instance


def simple_job() -> JobDefinition:
    """A job with a pipeline's tag."""

    @op
    def nothing():
        pass

    @job(name="digits_cnn", tags={tags.PIPELINE_TAG: "digits-cnn"})
    def simple():
        nothing()

    return simple


def create(instance: DagsterInstance, name: str = "", run_id: str | None = None) -> DagsterRun:
    """Create a run as a launchpad would."""
    worn = {tags.PIPELINE_TAG: "digits-cnn"} | ({tags.RUN_TAG: name} if name else {})
    return instance.create_run_for_job(simple_job(), run_id=run_id, tags=worn)


def named(instance: DagsterInstance, run: DagsterRun) -> str:
    """Name a run and read its name back."""
    name = run_names.name_run(instance, run)
    stored = instance.get_run_by_id(run.run_id)
    assert stored is not None and run_names.run_name(stored) == name
    return name


def test_job_names() -> None:
    """Jobs know letters, digits and underscores."""
    assert names.job_name("digits-cnn.2") == "digits_cnn_2"


def test_run_ids_are_made_of_names() -> None:
    """Two creations of one name make one run."""
    assert run_names.run_id_of("demo") == run_names.run_id_of("demo") != run_names.run_id_of("demo2")


def test_run_without_a_name_gets_one(instance: DagsterInstance) -> None:
    """The name has the pipeline and the beginning of the run's id."""
    run = create(instance)
    assert named(instance, run) == f"digits-cnn-{run.run_id[:8]}"


def test_name_is_the_same_without_a_coordinator(instance: DagsterInstance) -> None:
    """`dagster job execute` uses no coordinator."""
    run = create(instance)
    assert run_names.run_name(run) == f"digits-cnn-{run.run_id[:8]}"


def test_given_name_is_kept(instance: DagsterInstance) -> None:
    """From the API, where the id is made of it, and from a launchpad's tag."""
    assert named(instance, create(instance, "demo", run_names.run_id_of("demo"))) == "demo"
    assert named(instance, create(instance, "mine")) == "mine"


def test_taken_name_is_changed(instance: DagsterInstance) -> None:
    """A re-execution has a copy of its parent's tags, also of the name."""
    named(instance, create(instance, "demo", run_names.run_id_of("demo")))
    second = create(instance, "demo")
    assert named(instance, second) == f"demo-{second.run_id[:8]}"
    third = create(instance, run_names.run_name(instance.get_run_by_id(second.run_id)))
    assert named(instance, third) == f"demo-{third.run_id[:8]}"


def test_one_of_two_runs_keeps_a_shared_name(instance: DagsterInstance) -> None:
    """It is the run whose id is made from the name, else the oldest. The other run keeps the name that it got later."""
    older, newer = create(instance, "mine"), create(instance, "mine")
    assert [run_names.own_name(instance, run) for run in (older, newer)] == ["mine", f"mine-{newer.run_id[:8]}"]
    assert named(instance, newer) == f"mine-{newer.run_id[:8]}"
    instance.delete_run(older.run_id)
    assert run_names.own_name(instance, newer) == f"mine-{newer.run_id[:8]}"  # as it was read before its renaming
    made_of_name = create(instance, "demo2", run_names.run_id_of("demo2"))
    other = create(instance, "demo2")
    assert [run_names.own_name(instance, run) for run in (other, made_of_name)] == [
        f"demo2-{other.run_id[:8]}",
        "demo2",
    ]


@pytest.mark.parametrize("name", ["a b", "../x", "-"])
def test_impossible_name_is_replaced(instance: DagsterInstance, name: str) -> None:
    """A tag can hold anything; a path cannot."""
    run = create(instance, name)
    assert named(instance, run) == f"digits-cnn-{run.run_id[:8]}"


def test_run_names_leave_room_for_artifact_names(instance: DagsterInstance) -> None:
    """An artifact's name has the run's name and the step's."""
    create(instance, "x" * 120)
    name = named(instance, create(instance, "x" * 120))
    assert is_name(names.artifact_name(name, "process_train"))


def test_idempotency_key_has_run_launch_and_step(instance: DagsterInstance) -> None:
    """A run of an earlier version has no launch. A container of an earlier version does not report keys."""
    run = create(instance)
    key = names.idempotency_key(run, "train")
    assert key == f"{run.run_id}/train"
    assert names.idempotency_key(run.with_tags({tags.LAUNCH_TAG: "0" * 32}), "a.b") == f"{run.run_id}/{'0' * 32}/a.b"
    infos = [{}, {"idempotency_key": key}, {"idempotency_key": None}, {"idempotency_key": f"{key}2"}]
    assert [names.has_idempotency_key(info, key) for info in infos] == [True, True, False, False]
