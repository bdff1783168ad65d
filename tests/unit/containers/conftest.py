"""Fixtures for the example's tools: generated archives, and the artifacts that each tool makes of them."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bonseyes_dagster.tool.testing import make_artifact

ROOT = Path(__file__).parents[3]
COMPONENT = ROOT / "components/image-classification"


@pytest.fixture(scope="session")
def digits() -> ModuleType:
    """Import the script that writes the demo's archives. Return the module."""
    spec = importlib.util.spec_from_file_location("demo_digits", ROOT / "demo/digits.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def component() -> Iterator[None]:
    """Make the component's shared code importable."""
    sys.path.insert(0, str(COMPONENT / "code"))
    yield
    sys.path.remove(str(COMPONENT / "code"))


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that runs a tool of the example. The function returns the folder of the output."""
    numbers = itertools.count()

    def run(tool: str, **parameters: Any) -> Path:
        folder = ROOT / "containers/import" if tool == "import" else COMPONENT / "containers" / tool
        return make_artifact(folder, tmp_path_factory.mktemp(f"{tool}-{next(numbers)}"), **parameters)

    return run


@pytest.fixture(scope="session")
def archives(digits: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return archives of 12 x 10 pixels in 4 classes: 160 training samples and 40 test samples."""
    result: dict[str, Path] = digits.write_archives(
        tmp_path_factory.mktemp("archives"), digits.shapes((12, 10), classes=4, count=200)
    )
    return result


@pytest.fixture(scope="session")
def dataset(make: Callable[..., Path], archives: dict[str, Path]) -> Path:
    """Return the dataset of the training archives."""
    return make("import", images=archives["train-images"], labels=archives["train-labels"])


@pytest.fixture(scope="session")
def processed(make: Callable[..., Path], dataset: Path) -> Path:
    """Return the dataset with a normalised view of 12 x 12 pixels."""
    return make("processing", dataset=dataset, size=12)


@pytest.fixture(scope="session")
def tensors(make: Callable[..., Path], processed: Path) -> Path:
    """Return the exported view."""
    return make("export", dataset=processed)


@pytest.fixture(scope="session")
def training_set(make: Callable[..., Path], tensors: Path) -> Path:
    """Return the split tensors."""
    return make("training-set", tensors=tensors)


@pytest.fixture(scope="session")
def model(make: Callable[..., Path], training_set: Path) -> Path:
    """Return a model after 6 epochs of training."""
    return make("training", training_set=training_set, epochs=6)


@pytest.fixture(scope="session")
def test_tensors(make: Callable[..., Path], archives: dict[str, Path]) -> Path:
    """Return the tensors of the test archives."""
    imported = make("import", images=archives["test-images"], labels=archives["test-labels"])
    return make("export", dataset=make("processing", dataset=imported, size=12))


@pytest.fixture
def write_tensors() -> Callable[..., Path]:
    """Return a function that writes tensors with the given labels."""

    def write(folder: Path, labels: list[int], classes: list[str] | None = None) -> Path:
        from image_classification.artifacts import Folder
        from image_classification.tensors import TENSORS, TensorFile, TensorSet

        inputs = TensorFile(Folder(folder), "inputs.npy", (len(labels), 1, 4, 4), np.float32)
        inputs.write(np.random.default_rng(0).random((len(labels), 1, 4, 4), np.float32))
        outputs = TensorFile(Folder(folder), "outputs.npy", (len(labels),), np.int64)
        outputs.write(np.array(labels, np.int64))
        names = classes or [str(number) for number in range(max(labels) + 1)]
        tensors = {"inputs": inputs.finish(), "outputs": outputs.finish()}
        TensorSet(tensors=tensors, classes=tuple(names), preprocessing={}).write(Folder(folder), TENSORS)
        return folder

    return write
