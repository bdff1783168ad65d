"""Jobs of selected ops: required inputs, optional parameters, and refused values."""

from pathlib import Path
from typing import Any

import pytest
from dagster import Definitions, GraphDefinition, JobDefinition, graph, in_process_executor
from dagster._core.errors import DagsterConfigMappingFunctionError, DagsterInvalidConfigError
from dagster._core.execution.api import create_execution_plan

from bonseyes_dagster import Pipeline, PipelineParameter, Task, tool_op
from bonseyes_dagster.errors import InvalidError
from tests.unit.orchestration.tools import write_tools

TASK = Task(name="task", description="Do it.", output="A model.")
PARAMETERS = [
    PipelineParameter("images", to="load.images"),
    PipelineParameter("epochs", to="inner.training.epochs", default=5),
]


@pytest.fixture
def learning(tmp_path: Path) -> GraphDefinition:
    """Load; train and judge in a graph of their own; judge again."""
    project = write_tools(tmp_path)
    load = tool_op("import", project=project, name="load")
    train = tool_op("training", project=project)
    judge = tool_op("judge", project=project)

    @graph
    def inner(samples: Any) -> Any:
        model = train(samples)
        judge(model, samples)
        return model

    @graph
    def learning():
        samples = load()
        judge.alias("again")(inner(samples), samples)

    return learning


@pytest.fixture
def job(learning: GraphDefinition) -> JobDefinition:
    """Return the job as in assembled definitions, with another executor."""
    fixed = {"again.criteria": [{"minimum": 1}]}
    pipeline = Pipeline(name="x", graph=learning, task=TASK, parameters=PARAMETERS, fixed=fixed)
    return Definitions(jobs=[pipeline.job], executor=in_process_executor).resolve_job_def("x")


def wanted(job: JobDefinition, *ops: str) -> dict[str, bool]:
    """Return the fields of a selection's configuration, and whether each is required."""
    mapping = job.get_subset(op_selection=ops).config_mapping
    assert mapping is not None
    return {name: field.is_required for name, field in mapping.config_schema.config_type.fields.items()}


def planned(job: JobDefinition, config: dict[str, Any], *ops: str) -> set[str]:
    """Return the steps of a selection with a configuration."""
    return set(create_execution_plan(job.get_subset(op_selection=ops), config).step_keys_to_execute)


@pytest.mark.parametrize(
    ("ops", "fields"),
    [
        (["load"], {"images": True, "epochs": False}),
        (["inner"], {"inner.samples": True, "images": False, "epochs": False}),
        (["inner.training"], {"inner.samples": True, "images": False, "epochs": False}),
        (
            ["inner.judge"],
            {"inner.samples": True, "inner.judge.model": True, "images": False, "epochs": False},
        ),
        (["load", "inner.judge"], {"inner.judge.model": True, "images": True, "epochs": False}),
        (["again"], {"again.model": True, "again.dataset": True, "images": False, "epochs": False}),
        (["*again"], {"images": True, "epochs": False}),
    ],
)
def test_selection_requires_inputs_that_it_does_not_make(
    job: JobDefinition, ops: list[str], fields: dict[str, bool]
) -> None:
    """It requires no parameter of an op that is left out."""
    assert wanted(job, *ops) == fields


def test_selected_ops_are_planned_with_the_inputs_that_are_given(job: JobDefinition) -> None:
    """Values of parameters that are left out do no harm: the launchpad keeps them when the selection changes."""
    given = {"inner.samples": "import/old", "images": "/ignored", "epochs": 2}
    assert planned(job, given, "inner.training") == {"inner.training"}
    given = {"again.model": "http://training/artifacts/old", "again.dataset": "import/old"}
    assert planned(job, given, "again") == {"again"}
    assert planned(job, {"images": "/a.gz"}, "load", "inner", "again") >= {"load", "inner.training", "again"}


def test_missing_input_is_refused_by_name(job: JobDefinition) -> None:
    """The message has an example of a right value."""
    with pytest.raises(DagsterInvalidConfigError, match=r'Missing required config entry "inner\.samples"'):
        planned(job, {}, "inner.training")


def test_input_that_is_no_artifact_is_refused_by_name(job: JobDefinition) -> None:
    """No run is launched."""
    with pytest.raises(DagsterConfigMappingFunctionError) as caught:
        planned(job, {"inner.samples": "somewhere"}, "inner.training")
    assert isinstance(caught.value.__cause__, InvalidError)
    assert set(caught.value.__cause__.detail) == {"inner.samples"}


def test_limits_of_parameters_hold_in_a_selection(job: JobDefinition) -> None:
    """They are those of the whole pipeline."""
    with pytest.raises(DagsterConfigMappingFunctionError):
        planned(job, {"inner.samples": "import/old", "epochs": 1000}, "inner.training")


def test_optional_input_is_left_out_only_by_null(tmp_path: Path) -> None:
    """An input that is left out by mistake would change the result."""
    project = write_tools(tmp_path)
    load, train = tool_op("import", project=project, name="load"), tool_op("training", project=project)

    @graph
    def twice():
        samples = load()
        train.alias("second")(samples, train.alias("first")(samples))

    job = Pipeline(name="x", graph=twice, task=TASK, parameters=PARAMETERS[:1]).job
    assert wanted(job, "load", "second") == {"second.former-model": True, "images": True}
    assert planned(job, {"images": "/a", "second.former-model": None}, "load", "second") == {"load", "second"}


def test_a_parameter_cannot_have_the_name_of_an_input(learning: GraphDefinition) -> None:
    """A value could be for either."""
    parameters = [*PARAMETERS, PipelineParameter("inner.training.former-model", to="inner.training.note")]
    with pytest.raises(Exception, match="the name by which the input of a selected op is given"):
        Pipeline(name="x", graph=learning, task=TASK, parameters=parameters)
