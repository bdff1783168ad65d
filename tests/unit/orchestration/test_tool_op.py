"""From `tool.yml` to an op: its config, inputs, output and tags."""

import warnings
from pathlib import Path

import pytest
from dagster import DagsterInvalidConfigError, graph, validate_run_config

from bonseyes_dagster import tags, tool_op
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.orchestration.steps.references import artifact_type
from bonseyes_dagster.orchestration.steps.tool_op import project_folder
from tests.unit.orchestration.tools import write_tools


def test_op_mirrors_its_tool(tmp_path: Path) -> None:
    """Artifact parameters are inputs, in the order of the file; everything else is config."""
    train = tool_op("training", project=write_tools(tmp_path))
    assert train.name == "training"
    assert train.positional_inputs == ["training_set", "former_model"]
    assert train.input_dict["training_set"].dagster_type is artifact_type("com.bonseyes.dataset")
    assert train.input_dict["former_model"].default_value is None
    assert train.output_dict["result"].dagster_type is artifact_type("com.bonseyes.model")
    fields = train.config_schema.config_type.fields
    assert set(fields) == {"epochs", "model", "learning-rate", "note", "augment"}
    assert fields["epochs"].default_value == 30
    assert "at least 1 and at most 100" in fields["epochs"].description


def test_step_and_container_are_known_without_running(tmp_path: Path) -> None:
    """The pipeline container reads them from the definition."""
    op = tool_op("judge", name="benchmark", project=write_tools(tmp_path))
    assert op.name == "benchmark"
    assert op.container == "judge"
    assert op.tags == {tags.CONTAINER_TAG: "judge", tags.OUTPUT_TYPE_TAG: "com.bonseyes.benchmark"}


def test_python_keywords_make_room(tmp_path: Path) -> None:
    """Dagster refuses an op called `import`."""
    assert tool_op("import", project=write_tools(tmp_path)).name == "import_"


def test_config_is_checked_as_the_tool_would(tmp_path: Path) -> None:
    """Types and choices are refused before anything runs."""
    project = write_tools(tmp_path)

    @graph
    def training():
        tool_op("training", project=project)(tool_op("import", project=project)())

    job = training.to_job()
    good = {"ops": {"import_": {"config": {"images": "a"}}, "training": {"config": {"model": "label-smoothing"}}}}
    resolved = validate_run_config(job, good)
    assert resolved["ops"]["training"]["config"]["learning-rate"] == 0.1
    for config in ({"model": "tree"}, {"epochs": "3"}, {"unknown": 1}):
        with pytest.raises(DagsterInvalidConfigError):
            validate_run_config(job, {"ops": {**good["ops"], "training": {"config": config}}})
    with pytest.raises(DagsterInvalidConfigError, match="images"):
        validate_run_config(job, {})


def test_error_for_an_unknown_tool_lists_all_tools(tmp_path: Path) -> None:
    """A typing error is found when definitions load."""
    with pytest.raises(SettingsError, match="import, judge, training"):
        tool_op("trainning", project=write_tools(tmp_path))


def test_project_is_found_from_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`definitions.py` lies beside `containers/`, whatever the working directory is; the environment overrules it."""
    project = write_tools(tmp_path / "project")
    assert project_folder(str(project / "pipelines" / "definitions.py")) == project
    monkeypatch.chdir(tmp_path)
    assert project_folder(None) == tmp_path
    monkeypatch.setenv("BONSEYES_PROJECT", str(tmp_path / "elsewhere"))
    assert project_folder(str(project / "definitions.py")) == tmp_path / "elsewhere"


def test_definitions_load_without_warnings(tmp_path: Path) -> None:
    """Nothing that we use is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tool_op("training", project=write_tools(tmp_path))
