"""All six tools in one process, from archives to a benchmark; each reads the files of the one before."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bonseyes_dagster.tool.testing import make_artifact

ROOT = Path(__file__).parents[2]
COMPONENT = ROOT / "components/image-classification/containers"
CRITERIA = [{"name": "Accurate", "metric": "accuracy", "minimum": 0.97}]
CONSTRAINTS = [{"name": "Small", "metric": "model_size_bytes", "maximum": 2_000_000}]


def load_demo() -> ModuleType:
    """Return the script that writes the demo's archives, as a module."""
    spec = importlib.util.spec_from_file_location("demo_digits", ROOT / "demo/digits.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tools(archives: dict[str, Path], out: Path, size: int, **training: Any) -> dict[str, Any]:
    """Run all six tools as the pipelines wire them and return the benchmark's report."""
    tensors = {}
    for part in ("train", "test"):
        dataset = make_artifact(
            ROOT / "containers/import",
            out / f"import-{part}",
            images=archives[f"{part}-images"],
            labels=archives[f"{part}-labels"],
        )
        view = make_artifact(COMPONENT / "processing", out / f"process-{part}", dataset=dataset, size=size)
        tensors[part] = make_artifact(COMPONENT / "export", out / f"export-{part}", dataset=view)
    split = make_artifact(COMPONENT / "training-set", out / "split", tensors=tensors["train"])
    model = make_artifact(COMPONENT / "training", out / "train", training_set=split, **training)
    benchmark = make_artifact(
        COMPONENT / "benchmarking",
        out / "benchmark",
        model=model,
        tensors=tensors["test"],
        evaluation_criterias=CRITERIA,
        constraints=CONSTRAINTS,
    )
    report: dict[str, Any] = json.loads((benchmark / "report.json").read_text())
    return report


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_digits_become_a_model_that_passes(model: str, tmp_path: Path) -> None:
    """With default parameters either network classifies 97 % of the held-out digits: the report says passed."""
    demo = load_demo()
    archives = demo.write_archives(tmp_path / "archives", demo.digits())
    report = run_tools(archives, tmp_path, size=16, model=model)
    assert report["passed"], report["metrics"]
    assert report["throughput"]["samples"] == 359
    assert report["confusion_matrix"]["classes"] == list("0123456789")


def test_other_images_and_classes_need_no_other_code(tmp_path: Path) -> None:
    """Oblong images and four classes go the same way as the digits."""
    demo = load_demo()
    archives = demo.write_archives(tmp_path / "archives", demo.shapes((12, 10), classes=4, count=240))
    report = run_tools(archives, tmp_path, size=14, model="mlp", epochs=10)
    assert report["metrics"]["accuracy"] >= 0.9
    assert len(report["per_class"]) == 4
