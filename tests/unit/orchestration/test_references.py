"""What travels between ops, how it is typed, and how a re-execution finds it."""
# ruff: noqa: D103 - the ops of these jobs are named for what they do

from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DagsterInvariantViolationError,
    DynamicOut,
    DynamicOutput,
    In,
    Out,
    ReexecutionOptions,
    execute_job,
    in_process_executor,
    job,
    op,
    reconstructable,
)

from bonseyes_dagster import ArtifactRef
from bonseyes_dagster.orchestration.references import artifact_type, reference_io_manager

DATASET = artifact_type("com.bonseyes.dataset")
REFERENCE = ArtifactRef(container="import", name="demo_import", type="com.bonseyes.dataset", digest="ab", size=3)


@op(out=Out(DATASET))
def make():
    return REFERENCE


@op(out=Out(artifact_type("com.bonseyes.model")))
def make_wrong():
    return REFERENCE


@op(ins={"dataset": In(DATASET)})
def take(context, dataset) -> dict:
    if context.run.tags.get("fail") == "yes":
        raise RuntimeError("wanted")
    return {"url": dataset.url, "digest": dataset.digest}


@op(ins={"value": In(dict)})
def check(value) -> None:
    assert value == {"url": "http://import/artifacts/demo_import", "digest": "ab"}


@op
def make_object():
    return object()


@op(out=DynamicOut(int))
def spread():
    for number in (1, 2):
        yield DynamicOutput(number, mapping_key=f"n{number}")


@op
def double(number: int) -> int:
    return 2 * number


@op
def total(numbers: list) -> int:
    return sum(numbers)


@job(resource_defs={"io_manager": reference_io_manager}, executor_def=in_process_executor)
def passing():
    check(take(make()))


@job(resource_defs={"io_manager": reference_io_manager})
def wrong_type():
    make_wrong()


@job(resource_defs={"io_manager": reference_io_manager})
def wrong_value():
    make_object()


@job(resource_defs={"io_manager": reference_io_manager})
def mapping():
    total(spread().map(double).collect())


def test_references_and_values_pass() -> None:
    """From one op to the next, by the event log."""
    assert passing.execute_in_process().success


def test_mapped_outputs_are_told_apart() -> None:
    """Each branch of a dynamic output has its own value."""
    assert mapping.execute_in_process().output_for_node("total") == 6


def test_type_is_checked() -> None:
    """An op that makes something else than it says fails, with both types."""
    result = wrong_type.execute_in_process(raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "com.bonseyes.dataset" in str(failure) and "com.bonseyes.model" in str(failure)


def test_nothing_but_references_and_json_travels() -> None:
    """No pickle, ever."""
    with pytest.raises(DagsterInvariantViolationError, match="not object"):
        wrong_value.execute_in_process()


def test_re_execution_reads_the_parents_outputs(tmp_path: Path) -> None:
    """A run that begins in the middle loads what another run has made."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        with execute_job(reconstructable(passing), instance, tags={"fail": "yes"}) as first:
            assert not first.success
        options = ReexecutionOptions.from_failure(first.run_id, instance)
        with execute_job(
            reconstructable(passing), instance, tags={"fail": "no"}, reexecution_options=options
        ) as second:
            assert second.success
            assert {event.step_key for event in second.get_step_success_events()} == {"take", "check"}


def test_types_are_one_object_each() -> None:
    """Dagster wants one type of a name in a job."""
    assert artifact_type("com.bonseyes.dataset") is DATASET
    assert DATASET.unique_name == "com_bonseyes_dataset"
