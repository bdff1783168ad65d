"""Values between ops: their types, and how a re-execution finds them."""
# ruff: noqa: D103 - the ops of these jobs are named for what they do

import pickle
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from dagster import (
    DagsterEvent,
    DagsterInstance,
    DagsterRun,
    DynamicOut,
    DynamicOutput,
    ExecutorDefinition,
    In,
    MetadataValue,
    Out,
    ReexecutionOptions,
    execute_job,
    graph,
    in_process_executor,
    job,
    op,
    reconstructable,
)
from dagster._core.events import HandledOutputData

from bonseyes_dagster import ArtifactRef
from bonseyes_dagster.execution.threads.stored_values import OutputPlace
from bonseyes_dagster.orchestration.steps.output_records import METADATA_KEY, OutputRecords
from bonseyes_dagster.orchestration.steps.references import artifact_type, reference_io_manager
from tests.unit.execution.instances import project_instance

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


@op(out=DynamicOut(int))
def spread_wide():
    for number in range(10):
        yield DynamicOutput(number, mapping_key=f"n{number}")


@op
def total_or_fail(context, numbers: list) -> int:
    if context.run.tags.get("fail") == "yes":
        raise RuntimeError("wanted")
    return sum(numbers)


@job(resource_defs={"io_manager": reference_io_manager}, executor_def=in_process_executor)
def collecting():
    total_or_fail(spread_wide().map(double).collect())


@job(resource_defs={"io_manager": reference_io_manager}, executor_def=in_process_executor)
def passing():
    check(take(make()))


@job(resource_defs={"io_manager": reference_io_manager})
def wrong_type():
    make_wrong()


@job(resource_defs={"io_manager": reference_io_manager})
def mapping():
    total(spread().map(double).collect())


def test_references_and_values_reach_the_next_op() -> None:
    """They travel in the event log."""
    assert passing.execute_in_process().success


def test_each_branch_of_a_mapped_op_has_its_own_value() -> None:
    """Each branch of a dynamic output has its own value."""
    assert mapping.execute_in_process().output_for_node("total") == 6


def test_output_of_a_wrong_type_fails_the_step() -> None:
    """The message has both types."""
    result = wrong_type.execute_in_process(raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "com.bonseyes.dataset" in str(failure) and "com.bonseyes.model" in str(failure)


def event_reads_of(inputs: int, instance: DagsterInstance, executor: ExecutorDefinition) -> int:
    """Return how many statements read the event log while so many outputs are made and taken by one step."""

    @graph
    def fan_in():
        total([double.alias(f"double_{index}")() for index in range(inputs)])

    fan_in_job = fan_in.to_job(
        config={"ops": {f"double_{index}": {"inputs": {"number": index}} for index in range(inputs)}},
        resource_defs={"io_manager": reference_io_manager},
        executor_def=executor,
    )
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        result = fan_in_job.execute_in_process(instance=instance)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert result.output_for_node("total") == inputs * (inputs - 1)
    reads = [each for each in statements if each.startswith("SELECT") and "FROM event_logs" in each]
    return len(reads)


def test_inputs_of_the_same_run_do_not_read_its_events(tmp_path: Path) -> None:
    """Each input that reads all events makes a run's time grow with the square of its steps."""
    with project_instance(tmp_path) as instance:
        few = event_reads_of(2, instance, in_process_executor)
        assert event_reads_of(20, instance, in_process_executor) == few


def test_a_re_executed_step_reads_the_parents_events_once(tmp_path: Path) -> None:
    """One page of the parent's events has all outputs, for any number of inputs."""
    with project_instance(tmp_path) as instance:
        with execute_job(reconstructable(collecting), instance, tags={"fail": "yes"}) as first:
            assert not first.success
        with pytest.MonkeyPatch.context() as patch:
            reads = count_reads(instance, patch)
            options = ReexecutionOptions.from_failure(first.run_id, instance)
            again = {"tags": {"fail": "no"}, "reexecution_options": options}
            with execute_job(reconstructable(collecting), instance, **again) as second:
                assert reads == [first.run_id]
                assert second.success and second.output_for_node("total_or_fail") == 2 * sum(range(10))


def test_missing_record_of_an_output_is_reported(tmp_path: Path) -> None:
    """The message has the run, the op and the output."""
    records = OutputRecords()
    with project_instance(tmp_path) as instance:
        passing.execute_in_process(instance=instance)
        assert records.find(instance, OutputPlace("no-such-run", "make", "result", None)) is None


def test_newest_attempt_of_a_step_counts(tmp_path: Path) -> None:
    """After a takeover, the log has the old attempt while memory has the new one already."""
    with project_instance(tmp_path) as instance:
        run_id = passing.execute_in_process(instance=instance).run_id
        records = OutputRecords()
        make, take_ = (OutputPlace(run_id, step, "result", None) for step in ("make", "take"))
        records.add(make, {"json": '"new"'})
        assert records.find(instance, take_) is not None
        assert records.find(instance, make) == {"json": '"new"'}


def tell_output(instance: DagsterInstance, run_id: str, step: str, output: str, kept: dict[str, Any]) -> None:
    """Write what the process of a step writes when the step gives an output."""
    metadata = {METADATA_KEY: MetadataValue.json({**kept, "mapping_key": None})}
    data = HandledOutputData(output_name=output, manager_key="io_manager", metadata=metadata)
    event = DagsterEvent("HANDLED_OUTPUT", "passing", step_key=step, event_specific_data=data)
    instance.report_dagster_event(event, run_id)


def test_outputs_of_a_new_attempt_replace_those_of_a_lost_one(tmp_path: Path) -> None:
    """A step lost its process after its first output. Another process then writes both outputs."""
    with project_instance(tmp_path) as instance:
        run = DagsterRun(job_name="passing")
        instance.add_run(run)
        records = OutputRecords()
        one, first, second = (
            OutputPlace(run.run_id, *place, None) for place in (("one", "result"), ("two", "first"), ("two", "second"))
        )
        tell_output(instance, run.run_id, "one", "result", {"json": "1"})
        tell_output(instance, run.run_id, "two", "first", {"json": '"old"'})
        assert records.find(instance, one, "neighbour") is not None
        for output in ("first", "second"):
            tell_output(instance, run.run_id, "two", output, {"json": '"new"'})
        found = [records.find(instance, place, "last") for place in (first, second)]
        assert [kept and kept["json"] for kept in found] == ['"new"', '"new"']


def count_reads(instance: DagsterInstance, patch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the run's id with each read of its events."""
    reads: list[str] = []
    read = instance.get_records_for_run

    def note(run_id: str, **options: Any) -> Any:
        reads.append(run_id)
        return read(run_id, **options)

    patch.setattr(instance, "get_records_for_run", note)
    return reads


def test_a_step_reads_the_events_of_its_own_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of its inputs another process has made."""
    with project_instance(tmp_path) as instance:
        run = DagsterRun(job_name="passing")
        instance.add_run(run)
        for index in range(20):
            tell_output(instance, run.run_id, f"made_{index}", "result", {"json": str(index)})
        records = OutputRecords()
        reads = count_reads(instance, monkeypatch)
        for step in ("one", "other"):
            for index in range(20):
                assert records.find(instance, OutputPlace(run.run_id, f"made_{index}", "result", None), step)
        assert len(reads) == 2


def test_re_execution_reads_the_parents_outputs(tmp_path: Path) -> None:
    """A run that begins in the middle loads what another run has made."""
    with project_instance(tmp_path) as instance:
        with execute_job(reconstructable(passing), instance, tags={"fail": "yes"}) as first:
            assert not first.success
        options = ReexecutionOptions.from_failure(first.run_id, instance)
        with execute_job(
            reconstructable(passing), instance, tags={"fail": "no"}, reexecution_options=options
        ) as second:
            assert second.success
            assert {event.step_key for event in second.get_step_success_events()} == {"take", "check"}


def test_run_with_the_id_of_a_deleted_parent_is_not_the_parent(tmp_path: Path) -> None:
    """A run's id is made from its name, so a later run may have both."""
    with project_instance(tmp_path) as instance:
        with execute_job(reconstructable(passing), instance, tags={"fail": "yes"}) as first:
            assert not first.success
        options = ReexecutionOptions.from_failure(first.run_id, instance)
        storage: Any = instance.run_storage
        with storage.connect() as connection:  # the run of this id is one that was created later
            late = sqlalchemy.text("UPDATE runs SET create_timestamp = '2999-01-01 00:00:00.000' WHERE run_id = :run")
            connection.execute(late, {"run": first.run_id})
        again = {"tags": {"fail": "no"}, "reexecution_options": options}
        with execute_job(reconstructable(passing), instance, **again) as second:
            (failure,) = second.get_step_failure_events()
            assert f"Run {first.run_id} was deleted. Launch a new run." in str(failure)


def test_artifact_type_is_always_the_same_object() -> None:
    """A Dagster job must not have two types with one name."""
    assert artifact_type("com.bonseyes.dataset") is DATASET
    assert DATASET.unique_name == "com_bonseyes_dataset"


def test_values_stored_under_the_former_module_name_are_read():
    """Runs from before the move can be re-executed; they pickle values that hold references."""
    stored = pickle.dumps([ArtifactRef], protocol=2)
    former = stored.replace(
        b"bonseyes_dagster.orchestration.steps.references", b"bonseyes_dagster.orchestration.references"
    )
    assert former != stored
    assert pickle.loads(former) == [ArtifactRef]
