"""The benchmarking tool: its report, its verdicts, its pictures, and inputs that do not match."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bonseyes_dagster.errors import InvalidError, ToolError

Make = Callable[..., Path]

METRICS = {
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "lowest_recall",
    "latency_ms",
    "latency_p95_ms",
    "throughput_per_s",
    "model_size_bytes",
}


@pytest.fixture(scope="module")
def benchmark(make: Make, model: Path, test_tensors: Path) -> Path:
    """Return a benchmark with a criterion that is met, one that is not, and one that cannot be judged."""
    return make(
        "benchmarking",
        model=model,
        tensors=test_tensors,
        evaluation_criterias=[
            {"name": "Better than chance", "metric": "accuracy", "minimum": 0.3, "description": "of four classes"},
            {"metric": "beauty", "minimum": 1},
        ],
        constraints=[{"name": "Tiny", "metric": "model_size_bytes", "maximum": 10}],
    )


@pytest.fixture(scope="module")
def report(benchmark: Path) -> dict[str, Any]:
    """Return the report of the benchmark."""
    document: dict[str, Any] = json.loads((benchmark / "report.json").read_text())
    return document


def test_metrics_agree_with_the_confusion_matrix(report: dict[str, Any], model: Path) -> None:
    """The report has every metric."""
    matrix = np.array(report["confusion_matrix"]["counts"])
    assert set(report["metrics"]) == METRICS
    assert report["metrics"]["accuracy"] == matrix.trace() / 40
    assert matrix.sum(axis=1).tolist() == [10, 10, 10, 10]
    assert [entry["support"] for entry in report["per_class"]] == [10, 10, 10, 10]
    assert [entry["recall"] for entry in report["per_class"]] == (matrix.diagonal() / 10).tolist()
    assert report["metrics"]["model_size_bytes"] == (model / "model.onnx").stat().st_size
    assert report["metrics"]["latency_ms"] > 0
    assert report["metrics"]["latency_p95_ms"] >= report["metrics"]["latency_ms"]
    assert report["metrics"]["throughput_per_s"] > 0


def test_one_failed_criterion_fails_the_benchmark(report: dict[str, Any]) -> None:
    """Each criterion and each constraint has a verdict."""
    met, unknown = report["evaluation_criterias"]
    (size,) = report["constraints"]
    assert met["passed"]
    assert met["value"] == report["metrics"]["accuracy"]
    assert (unknown["passed"], unknown["value"], unknown["name"]) == (False, None, "beauty")
    assert unknown["reason"].startswith("There is no metric `beauty`; the metrics are accuracy, ")
    assert not size["passed"]
    assert size["reason"].endswith(", above the maximum of 10.")
    assert report["passed"] is False


def test_the_report_has_the_documented_keys(report: dict[str, Any]) -> None:
    """docs/formats.md documents these keys and no others."""
    assert set(report) == {
        "format",
        "format_version",
        "passed",
        "metrics",
        "evaluation_criterias",
        "constraints",
        "per_class",
        "confusion_matrix",
        "latency",
        "throughput",
        "model",
        "environment",
    }
    assert set(report["constraints"][0]) == {
        "name",
        "description",
        "metric",
        "minimum",
        "maximum",
        "value",
        "passed",
        "reason",
    }


def test_both_pictures_are_readable_png_images(benchmark: Path) -> None:
    """They are complete, large enough and not empty."""
    for name in ("confusion-matrix.png", "per-class.png"):
        with Image.open(benchmark / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 400
            assert len(image.convert("RGB").getcolors(2**24) or ()) > 50


def test_every_metric_is_also_a_scalar(benchmark: Path) -> None:
    """Users compare the scalars of several runs."""
    written = " ".join(path.name for path in (benchmark.parent / "metrics").rglob("*"))
    assert all(name in written for name in METRICS)


def test_a_benchmark_without_criteria_passes(make: Make, model: Path, test_tensors: Path) -> None:
    """Criteria and constraints are optional."""
    made = make("benchmarking", model=model, tensors=test_tensors)
    assert json.loads((made / "report.json").read_text())["passed"] is True


@pytest.mark.parametrize(
    "criteria", [{"metric": "accuracy"}, [{"metric": "accuracy"}], [{"minimum": 1}], [{"metric": "accuracy", "min": 1}]]
)
def test_a_criterion_without_metric_or_bound_is_refused(
    make: Make, model: Path, test_tensors: Path, criteria: Any
) -> None:
    """The parameter's schema refuses it, so the tool does not start."""
    with pytest.raises(InvalidError):
        make("benchmarking", model=model, tensors=test_tensors, evaluation_criterias=criteria)


def test_other_preprocessing_is_refused(make: Make, model: Path, dataset: Path) -> None:
    """The metrics make no sense for samples that differ from the training samples."""
    other = make("export", dataset=make("processing", dataset=dataset, size=12, mean=0.1))
    with pytest.raises(ToolError) as caught:
        make("benchmarking", model=model, tensors=other)
    assert caught.value.message == (
        "The tensors must have the preprocessing of the model's training: mean is 0.1, but the model needs 0.5."
    )


def test_unknown_classes_are_refused(make: Make, model: Path, archives: dict[str, Path]) -> None:
    """The tool compares classes by name. The message names the unknown class."""
    other = make(
        "import",
        images=archives["test-images"],
        labels=archives["test-labels"],
        class_names=["0", "1", "2", "three"],
    )
    other = make("export", dataset=make("processing", dataset=other, size=12))
    with pytest.raises(ToolError) as caught:
        make("benchmarking", model=model, tensors=other)
    assert caught.value.message == (
        "The tensors have classes that the model does not know: three; it knows 0, 1, 2, 3."
    )


def test_unknown_classes_without_samples_are_ignored(
    make: Make, model: Path, archives: dict[str, Path], report: dict[str, Any]
) -> None:
    """The report equals the report of the same tensors without this class."""
    more = make(
        "import",
        images=archives["test-images"],
        labels=archives["test-labels"],
        class_names=["0", "1", "2", "3", "four"],
    )
    made = make("benchmarking", model=model, tensors=make("export", dataset=make("processing", dataset=more, size=12)))
    assert json.loads((made / "report.json").read_text())["confusion_matrix"] == report["confusion_matrix"]


def test_labels_with_gaps_reach_the_report(make: Make, tmp_path: Path) -> None:
    """From archives with the labels 1 and 3 to the report: the classes 0 and 2 exist without samples."""
    labels = np.array([1, 3] * 8, np.uint8)
    images = np.repeat(labels, 64).reshape(-1, 8, 8) * 60
    (tmp_path / "images").write_bytes(bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes() + images.tobytes())
    (tmp_path / "labels").write_bytes(bytes([0, 0, 8, 1]) + np.array([16], ">u4").tobytes() + labels.tobytes())
    dataset = make("import", images=tmp_path / "images", labels=tmp_path / "labels")
    tensors = make("export", dataset=make("processing", dataset=dataset, size=8))
    fitted = make("training", training_set=make("training-set", tensors=tensors), epochs=1, model="mlp")
    report = json.loads((make("benchmarking", model=fitted, tensors=tensors) / "report.json").read_text())
    assert [entry["support"] for entry in report["per_class"]] == [0, 8, 0, 8]
    assert report["confusion_matrix"]["classes"] == ["0", "1", "2", "3"]
    assert report["metrics"]["lowest_recall"] == min(entry["recall"] for entry in report["per_class"][1::2])


def test_classes_in_another_order_are_matched(
    make: Make, model: Path, archives: dict[str, Path], report: dict[str, Any]
) -> None:
    """The names count, not the numbers: the same tensors with renamed classes give the renamed matrix."""
    order = [1, 0, 2, 3]
    other = make(
        "import",
        images=archives["test-images"],
        labels=archives["test-labels"],
        class_names=[str(number) for number in order],
    )
    made = make(
        "benchmarking",
        model=model,
        tensors=make("export", dataset=make("processing", dataset=other, size=12)),
    )
    matrix = json.loads((made / "report.json").read_text())["confusion_matrix"]["counts"]
    expected = report["confusion_matrix"]["counts"]
    assert matrix == [expected[number] for number in order]


def test_a_broken_onnx_file_is_refused(make: Make, model: Path, test_tensors: Path, tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "model.json").write_bytes((model / "model.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ToolError, match=r"^onnxruntime cannot load model\.onnx: "):
        make("benchmarking", model=tmp_path, tensors=test_tensors)
