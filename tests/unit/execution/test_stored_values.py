"""An output value of an op is loaded equal and with the same type."""
# ruff: noqa: D103 - the names of these ops say enough

import dataclasses
import enum
import math
import re
import threading
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInvariantViolationError,
    DagsterRun,
    DynamicOut,
    DynamicOutput,
    MetadataValue,
    ReexecutionOptions,
    execute_job,
    in_process_executor,
    job,
    op,
    reconstructable,
)
from dagster._serdes import deserialize_value, serialize_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bonseyes_dagster import ArtifactRef
from bonseyes_dagster.execution.threads.stored_values import (
    MAX_LOGGED_CHARACTERS,
    OutputPlace,
    load_value,
    store_value,
)
from bonseyes_dagster.orchestration.steps.references import reference_io_manager
from tests.unit.execution.instances import project_instance

PLACE = OutputPlace("run", "make[a]", "result", "b")
Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    """An enumeration."""

    RED = 1


class Level(enum.IntEnum):
    """An enumeration whose members equal integers."""

    LOW = 1


class Text(str):
    """A subclass of a type that JSON has."""


@dataclasses.dataclass
class Box:
    """A class of a user."""

    content: Any


REFERENCE = ArtifactRef(container="import", name="demo", type="com.bonseyes.dataset")
CYCLE: list[Any] = [1]
CYCLE.append(CYCLE)
VALUES: list[Any] = [
    (1, "two", (3,)), {1: "a", True + 1: "b"}, {"tuple": (1, 2)}, {1, 2}, frozenset({3}), b"bytes", bytearray(b"more"),
    float("nan"), float("-inf"), -0.0, 10**5000, 2**80, None, True, "\ud83d\ude00", "\ud800", "", {"__class__": "Box"},
    {"__mapping_items__": []}, Point(1, 2), Colour.RED, Level.LOW, Text("text"), Box([1, (2,)]), [REFERENCE], REFERENCE,
    OrderedDict(a=1), ["x" * MAX_LOGGED_CHARACTERS], list(range(10_000)), {"value": 1}, {"pickle": 1}, 1 + 2j,
]  # fmt: skip

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=8), st.just(Colour.RED),
    st.just(Level.LOW), st.text(st.characters(exclude_categories=[]), max_size=8),
)  # fmt: skip
keys = st.one_of(st.integers(), st.booleans(), st.text(max_size=4), st.tuples(st.integers(), st.none()))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.frozensets(keys, max_size=4),
        st.sets(keys, max_size=4),
        inner.map(Box),
    ),
    max_leaves=12,
)


def is_same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal and of the same types, in all their parts; NaN is the same as NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, dict):
        return is_same(list(left.items()), list(right.items()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(is_same, left, right))
    if isinstance(left, set | frozenset):
        return left == right and sorted(map(repr, left)) == sorted(map(repr, right))
    if isinstance(left, Box):
        return is_same(left.content, right.content)
    return bool(left == right)


def through_the_log(kept: dict[str, Any]) -> Any:
    """Return an entry after it was written to the event log and read from it."""
    metadata: Any = deserialize_value(serialize_value(MetadataValue.json(kept)))
    return metadata.value


@given(values)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_loaded_value_is_equal_and_of_the_same_type(tmp_path, value) -> None:
    """Values that look like JSON or like Dagster's serialisation are no exception."""
    back = load_value(through_the_log(store_value(value, PLACE, tmp_path)), PLACE, tmp_path)
    assert is_same(back, value)


@op(out=DynamicOut(Any))
def spread():
    for index, value in enumerate(VALUES):
        yield DynamicOutput(value, mapping_key=str(index))


@op
def compare(context, found: list) -> None:
    if context.run.tags.get("fail") == "yes":
        raise RuntimeError("wanted")
    assert len(found) == len(VALUES)
    for back, value in zip(found, VALUES, strict=True):
        assert is_same(back, value), value


@job(resource_defs={"io_manager": reference_io_manager}, executor_def=in_process_executor)
def passing():
    compare(spread().collect())


def test_next_op_and_re_execution_load_equal_values(tmp_path: Path) -> None:
    """The second run has no value in memory: it reads the log and the files of the first run."""
    with project_instance(tmp_path) as instance:
        with execute_job(reconstructable(passing), instance) as plain:
            assert plain.success
        with execute_job(reconstructable(passing), instance, tags={"fail": "yes"}) as first:
            assert not first.success
        options = ReexecutionOptions.from_failure(first.run_id, instance)
        with execute_job(
            reconstructable(passing), instance, tags={"fail": "no"}, reexecution_options=options
        ) as second:
            assert second.success
            assert {event.step_key for event in second.get_step_success_events()} == {"compare"}


def test_value_that_contains_itself_is_loaded(tmp_path) -> None:
    """JSON cannot store it."""
    back: Any = load_value(store_value(CYCLE, PLACE, tmp_path), PLACE, tmp_path)
    assert back[0] == 1 and back[1] is back


@pytest.mark.parametrize("value", [["x" * 100_000], list(range(100_000)), {str(key): key for key in range(10_000)}])
def test_large_value_is_not_in_the_event_log(tmp_path, value) -> None:
    """Every reader of the run's events would read it."""
    kept = store_value(value, PLACE, tmp_path)
    assert len(str(kept)) < 200
    assert load_value(kept, PLACE, tmp_path) == value


@pytest.mark.parametrize("value", [[1], {1: 2}])
def test_each_reader_gets_its_own_object(tmp_path, value) -> None:
    """An op that changes its input must not change the input of another op."""
    kept = store_value(value, PLACE, tmp_path)
    assert load_value(kept, PLACE, tmp_path) is not load_value(kept, PLACE, tmp_path)


def test_too_deeply_nested_value_fails_with_a_clear_error(tmp_path) -> None:
    """A RecursionError would not name the op."""
    value: list[Any] = []
    for _ in range(3000):
        value = [value]
    with pytest.raises(DagsterInvariantViolationError, match="Cannot store the output 'result"):
        store_value(value, PLACE, tmp_path)


def test_values_of_older_runs_are_loaded(tmp_path) -> None:
    """Older versions stored the JSON value itself."""
    assert load_value({"value": {"a": [1]}, "mapping_key": None}, PLACE, tmp_path) == {"a": [1]}


@op
def make_lock():
    return {"lock": threading.Lock()}


@job(resource_defs={"io_manager": reference_io_manager})
def unstorable():
    make_lock()


def test_error_of_an_unstorable_value_names_op_and_output() -> None:
    """The message also has the reason."""
    expected = re.escape("Cannot store the output 'result' of the op 'make_lock', a value of type dict: cannot pickle")
    with pytest.raises(DagsterInvariantViolationError, match=expected):
        unstorable.execute_in_process()


def test_failed_write_leaves_no_file(tmp_path) -> None:
    """Neither half a file nor a draft."""
    with pytest.raises(DagsterInvariantViolationError):
        store_value([threading.Lock()], PLACE, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_error_names_the_file_that_cannot_be_written(tmp_path) -> None:
    """Here, the run's folder is a file."""
    (tmp_path / "run").touch()
    with pytest.raises(DagsterInvariantViolationError, match=r"Cannot store the output 'result\[b\]' .* in "):
        store_value((1, 2), PLACE, tmp_path)


def test_changed_file_is_not_loaded(tmp_path) -> None:
    """Loading a pickle executes code in it."""
    kept = store_value((1, 2), PLACE, tmp_path)
    PLACE.file(tmp_path).write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(DagsterInvariantViolationError, match="has changed since the op wrote it"):
        load_value(kept, PLACE, tmp_path)


def test_error_of_a_lost_file_tells_to_launch_a_new_run(tmp_path) -> None:
    """The value cannot be made again in this run."""
    kept = store_value((1, 2), PLACE, tmp_path)
    PLACE.file(tmp_path).unlink()
    with pytest.raises(DagsterInvariantViolationError, match="Launch a new run"):
        load_value(kept, PLACE, tmp_path)


def test_deletion_of_a_run_removes_only_its_files(tmp_path) -> None:
    """The files of other runs stay."""
    with project_instance(tmp_path) as instance:
        storage = Path(instance.storage_directory())
        other = dataclasses.replace(PLACE, run_id="other")
        for place in (PLACE, other):
            store_value((1,), place, storage)
        instance.add_run(DagsterRun(job_name="job", run_id="run"))
        # Every deletion of a run goes through the storage.
        instance.delete_run("run")
        assert not PLACE.file(storage).exists() and other.file(storage).exists()


def test_is_same_compares_types_and_nan() -> None:
    """Without this, the tests above could accept a wrong value."""
    assert is_same([math.nan], [math.nan]) and not is_same((1,), [1]) and not is_same({1: 2}, {"1": 2})
    assert not is_same(True, 1) and not is_same(0.0, -0.0)
