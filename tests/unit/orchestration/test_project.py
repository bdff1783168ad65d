"""The project on disk, ours included: which pipelines `definitions.py` holds."""

from pathlib import Path

import pytest
from dagster import JobDefinition

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.orchestration.project import load_pipeline, load_pipelines

PROJECT = Path(__file__).parents[3]


def test_this_project_has_its_pipelines() -> None:
    """Both kinds of model, of the same containers, for the same task."""
    pipelines = load_pipelines(PROJECT)
    assert sorted(pipelines) == ["digits-cnn", "digits-mlp"]
    cnn, mlp = pipelines["digits-cnn"], pipelines["digits-mlp"]
    assert isinstance(cnn.job, JobDefinition) and cnn.job.name == "digits_cnn"
    assert cnn.containers == mlp.containers
    assert {step.name for step in cnn.steps} == {
        "import_train",
        "import_test",
        "process_train",
        "process_test",
        "export_train",
        "export_test",
        "split",
        "train",
        "benchmark",
    }
    assert cnn.run_config({})["ops"]["train"]["config"]["model"] == "cnn"
    assert mlp.run_config({})["ops"]["train"]["config"]["model"] == "mlp"


def test_task_of_this_project_is_complete() -> None:
    """It has eight fields, and every archive is a parameter."""
    pipeline = load_pipeline(PROJECT, "digits-cnn")
    task = pipeline.task.to_json()
    assert len(task) == 8 and all(task.values())
    parameters = {parameter.name: parameter for parameter in pipeline.parameters}
    assert all(parameters[name].required for name in task["archives"])
    assert set(parameters) - set(task["archives"]) == {"epochs", "learning-rate", "batch-size", "seed", "image-size"}


def test_error_for_an_unknown_pipeline_lists_all_pipelines() -> None:
    """A typing error in the setting is then easy to see."""
    with pytest.raises(SettingsError, match="digits-cnn, digits-mlp"):
        load_pipeline(PROJECT, "digits")


def test_folder_without_definitions_is_refused(tmp_path: Path) -> None:
    """The message says what to do."""
    with pytest.raises(SettingsError, match="BONSEYES_PROJECT"):
        load_pipelines(tmp_path)
