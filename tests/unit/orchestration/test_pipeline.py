"""Pipelines: their parameters and steps, and the mistakes that are refused when definitions load."""

from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInvalidDefinitionError, GraphDefinition, graph, in_process_executor, op
from dagster._config import process_config

from bonseyes_dagster import Pipeline, PipelineParameter, Task, tags, tool_op
from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.execution.threads.executor import concurrent_executor
from bonseyes_dagster.execution.threads.multiprocess import separate_executor
from tests.unit.orchestration.tools import write_tools

TASK = Task(name="task", description="Do it.", output="A model.")
IMAGES = PipelineParameter("train-images", to="import_train.images")


@pytest.fixture
def learning(tmp_path: Path) -> GraphDefinition:
    """Import twice, train in a graph of its own, judge."""
    project = write_tools(tmp_path)
    load = tool_op("import", project=project)
    train = tool_op("training", project=project)
    judge = tool_op("judge", project=project)

    @graph
    def inner(samples: Any) -> Any:
        return train(samples)

    @graph
    def learning():
        judge(inner(load.alias("import_train")()), load.alias("import_test")())

    return learning


def make(graph: GraphDefinition, **options: Any) -> Pipeline:
    """Make a pipeline with the required arguments."""
    defaults: dict[str, Any] = {
        "name": "digits-cnn",
        "task": TASK,
        "parameters": [IMAGES, PipelineParameter("epochs", to="inner.training.epochs", default=5)],
        "fixed": {"import_test.images": "http://host/test.gz", "judge.criteria": [{"minimum": 1}]},
    }
    return Pipeline(graph=graph, **{**defaults, **options})


def test_pipeline_describes_itself_like_a_tool(learning: GraphDefinition) -> None:
    """Types, limits and descriptions come from the tools; a default may be the pipeline's own."""
    described = make(learning).describe()
    assert (described.name, described.collection, described.output_type) == ("digits-cnn", "/runs", "com.bonseyes.run")
    images, epochs = described.parameters
    assert (images.type, images.required, images.description) == ("file", True, "The images.")
    assert (epochs.type, epochs.default, epochs.maximum, epochs.required) == ("integer", 5, 100, False)
    assert described.schema["required"] == ["train-images"]


def test_steps_have_paths_and_containers(learning: GraphDefinition) -> None:
    """A step in an inner graph has its path as name."""
    pipeline = make(learning)
    assert {step.name: step.container for step in pipeline.steps} == {
        "import_train": "import",
        "import_test": "import",
        "inner.training": "training",
        "judge": "judge",
    }
    assert set(pipeline.containers) == {"import", "training", "judge"}


def test_parameters_reach_every_op_that_they_set(learning: GraphDefinition) -> None:
    """Fixed values are always set."""
    pipeline = make(
        learning,
        parameters=[
            IMAGES,
            PipelineParameter("size", to=["import_train.size", "import_test.size"]),
            PipelineParameter("former", to="inner.training.former-model"),
        ],
    )
    config = pipeline.run_config({"train-images": "/a.gz", "size": 20, "former": "training/old"})
    assert config["ops"]["import_train"]["config"] == {"images": "/a.gz", "size": 20}
    assert config["ops"]["import_test"]["config"] == {"images": "http://host/test.gz", "size": 20}
    assert config["ops"]["inner"]["ops"]["training"]["inputs"] == {"former_model": "training/old"}
    assert config["ops"]["judge"]["config"] == {"criteria": [{"minimum": 1}]}


def test_job_shows_exactly_its_parameters(learning: GraphDefinition) -> None:
    """What the launchpad shows is the pipeline's schema, not that of its ops."""
    pipeline = make(learning)
    assert pipeline.job.name == "digits_cnn"
    assert pipeline.job.tags[tags.PIPELINE_TAG] == "digits-cnn"
    fields = pipeline.job.config_mapping.config_schema.config_type.fields
    assert set(fields) == {"train-images", "epochs"}
    assert fields["epochs"].default_value == 5


def test_job_refuses_values_out_of_bounds(learning: GraphDefinition) -> None:
    """Limits that Dagster's config cannot express are kept as well."""
    pipeline = make(learning)
    with pytest.raises(InvalidError, match="at most 100"):
        pipeline.job.config_mapping.resolve_from_unvalidated_config({"train-images": "/a.gz", "epochs": 1000})


@pytest.mark.parametrize(
    ("executor", "name"),
    [("concurrent", "concurrent"), ("multiprocess", "multiprocess"), (in_process_executor, "in_process")],
)
def test_executor_can_be_a_word_or_an_executor_of_dagster(learning: GraphDefinition, executor: Any, name: str) -> None:
    """The default is the executor of the definitions."""
    assert make(learning, executor=executor).job.executor_def.name == name
    assert not make(learning).job.has_specified_executor


def test_multiprocess_takes_the_same_configuration_as_concurrent() -> None:
    """A job may change from one to the other and keep its configuration."""
    config = {"max_concurrent": 3, "tag_concurrency_limits": [{"key": "lane", "limit": 1}]}
    for executor in (concurrent_executor, separate_executor([])):
        assert process_config(executor.config_schema.config_type, config).success
        assert process_config(executor.config_schema.config_type, {}).success


def test_version_changes_with_a_fixed_value(learning: GraphDefinition) -> None:
    """Another fixed value makes another pipeline."""
    fixed = {"import_test.images": "http://host/test.gz", "judge.criteria": []}
    assert make(learning).describe().version == make(learning).describe().version
    assert make(learning).describe().version != make(learning, fixed=fixed).describe().version


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "a b"}, "cannot name a pipeline"),
        ({"executor": "threads"}, "there is no executor 'threads'; there are: concurrent, multiprocess"),
        ({"parameters": [IMAGES, IMAGES]}, "the same name"),
        ({"parameters": [PipelineParameter("a", to="nothing.size")]}, "there is no op 'nothing'"),
        ({"parameters": [PipelineParameter("a", to="judge.size")]}, "judge has no parameter 'size'"),
        ({"parameters": []}, "'import_train.images' is required"),
        ({"parameters": [IMAGES, PipelineParameter("b", to="import_test.images")]}, "both set 'import_test.images'"),
        (
            {"parameters": [IMAGES, PipelineParameter("e", to="inner.training.epochs", default=0)]},
            "at least 1 and at most 100, not 0",
        ),
        (
            {"parameters": [IMAGES, PipelineParameter("e", to=["import_train.size", "inner.training.note"])]},
            "'inner.training.note' of string",
        ),
        ({"fixed": {"import_test.images": "http://a/b", "judge.criteria": "all"}}, "'judge.criteria'"),
        ({"fixed": {"import_test.images": "http://a/b", "inner.training.model": "tree"}}, "cnn, label-smoothing"),
    ],
)
def test_mistakes_are_reported_when_definitions_load(
    learning: GraphDefinition, options: dict[str, Any], sentence: str
) -> None:
    """Each mistake is reported, with the pipeline's name."""
    with pytest.raises(DagsterInvalidDefinitionError) as caught:
        make(learning, **options)
    assert sentence in str(caught.value)


def test_wire_between_different_types_is_refused(tmp_path: Path) -> None:
    """A dataset must not go where a model belongs, in inner graphs too. The message names both ends."""
    project = write_tools(tmp_path)
    load, judge = tool_op("import", project=project), tool_op("judge", project=project)

    @graph
    def judging(sample: Any) -> Any:
        return judge(model=sample, dataset=sample)

    @graph
    def wrong():
        judging(load())

    with pytest.raises(DagsterInvalidDefinitionError) as caught:
        make(wrong, parameters=[PipelineParameter("images", to="import_.images")], fixed={})
    assert "import_ makes a com.bonseyes.dataset" in str(caught.value)
    assert "'model' of judging.judge, which takes a com.bonseyes.model" in str(caught.value)


def test_graph_without_tools_is_refused() -> None:
    """Such a job needs no Pipeline."""

    @op
    def nothing():
        pass

    @graph
    def idle():
        nothing()

    with pytest.raises(DagsterInvalidDefinitionError, match="no op made by tool_op"):
        make(idle, parameters=[], fixed={})
