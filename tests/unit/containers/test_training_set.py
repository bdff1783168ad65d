"""The training-set tool: a split that is stratified, complete, seeded and honest about classes that are too small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bonseyes_dagster.errors import ToolError

Make = Callable[..., Path]


def load(folder: Path, name: str) -> np.ndarray:
    """Return one tensor of a training set."""
    array: np.ndarray = np.load(folder / f"{name}.npy", allow_pickle=False)
    return array


def test_every_sample_is_in_exactly_one_part(tensors: Path, training_set: Path) -> None:
    """Both parts together are the tensors, inputs still with their outputs."""
    inputs = np.concatenate([load(training_set, "train-inputs"), load(training_set, "validation-inputs")])
    outputs = np.concatenate([load(training_set, "train-outputs"), load(training_set, "validation-outputs")])
    found = sorted((x.tobytes(), int(y)) for x, y in zip(inputs, outputs, strict=True))
    expected = zip(load(tensors, "inputs"), load(tensors, "outputs"), strict=True)
    assert found == sorted((x.tobytes(), int(y)) for x, y in expected)


def test_classes_keep_their_shares(training_set: Path) -> None:
    """A fifth of each class validates, and `tensors.json` says so."""
    assert np.bincount(load(training_set, "validation-outputs")).tolist() == [8, 8, 8, 8]
    document = json.loads((training_set / "tensors.json").read_text())
    assert document["class_counts"] == {"train": [32, 32, 32, 32], "validation": [8, 8, 8, 8]}
    assert document["split"] == {"validation_fraction": 0.2, "seed": 0}
    assert document["format"] == "com.bonseyes.training-set"
    assert set(document["tensors"]) == {"train_inputs", "train_outputs", "validation_inputs", "validation_outputs"}


def test_the_seed_decides(make: Make, tensors: Path, training_set: Path) -> None:
    """The same seed splits the same, another one differently."""
    again, other = make("training-set", tensors=tensors), make("training-set", tensors=tensors, seed=1)
    same = (training_set / "tensors.json").read_bytes()
    assert (again / "tensors.json").read_bytes() == same
    assert load(other, "validation-inputs").tobytes() != load(training_set, "validation-inputs").tobytes()


def test_small_classes_are_on_both_sides(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """However small the fraction, each class has one sample at least in either part."""
    made = make("training-set", tensors=write_tensors(tmp_path, [0] * 50 + [1] * 2), validation_fraction=0.01)
    assert np.bincount(load(made, "validation-outputs")).tolist() == [1, 1]
    made = make("training-set", tensors=write_tensors(tmp_path, [0] * 50 + [1] * 2), validation_fraction=0.9)
    assert np.bincount(load(made, "train-outputs")).tolist() == [5, 1]


def test_too_small_classes_are_named(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """A class with one sample cannot be split, and the sentence says which; a class with none is not too small."""
    folder = write_tensors(tmp_path, [0, 0, 0, 1, 3, 3], classes=["ant", "bee", "cat", "dog"])
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=folder)
    assert caught.value.message == (
        "Each class that has samples needs at least 2 samples, one to train and one to validate with;"
        " too few have: bee (1)."
    )


def test_labels_may_have_gaps(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """A class without samples is in neither part, as EMNIST's class 0 or one that was filtered out."""
    made = make("training-set", tensors=write_tensors(tmp_path, [1, 1, 1, 3, 3, 3], classes=list("abcde")))
    document = json.loads((made / "tensors.json").read_text())
    assert document["class_counts"] == {"train": [0, 2, 0, 2, 0], "validation": [0, 1, 0, 1, 0]}
    assert document["classes"] == list("abcde")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([], "The tensors hold no samples; a split needs at least two."),
        ([0, 0, -1], "There are labels from -1 to 0, but 2 classes."),
        ([0, 0, 2], "There are labels from 0 to 2, but 2 classes."),
    ],
)
def test_labels_that_cannot_be_split_are_refused(
    make: Make, tmp_path: Path, write_tensors: Callable[..., Path], labels: list[int], sentence: str
) -> None:
    """No samples at all, or a label that is no class's number, is a sentence."""
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=write_tensors(tmp_path, labels, classes=["a", "b"]))
    assert caught.value.message == sentence


def test_tensors_that_are_not_as_promised_are_found(make: Make, tensors: Path, tmp_path: Path) -> None:
    """A tensor that is cut short, or of another shape, fails with a sentence."""
    (tmp_path / "tensors.json").write_bytes((tensors / "tensors.json").read_bytes())
    (tmp_path / "inputs.npy").write_bytes((tensors / "inputs.npy").read_bytes()[:-1])
    (tmp_path / "outputs.npy").write_bytes((tensors / "outputs.npy").read_bytes())
    with pytest.raises(ToolError, match=r"^inputs\.npy is not a whole \.npy file: "):
        make("training-set", tensors=tmp_path)
    np.save(tmp_path / "outputs.npy", np.zeros(3, np.int64))
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=tmp_path)
    assert caught.value.message == (
        "outputs.npy is int64 of shape (3,) where tensors.json promises int64 of shape (160,)."
    )


def test_inputs_and_outputs_must_be_as_many(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """Tensors with a label too few are refused rather than split askew."""
    folder = write_tensors(tmp_path, [0, 0, 1, 1])
    np.save(folder / "outputs.npy", np.array([0, 0, 1], np.int64))
    document = json.loads((folder / "tensors.json").read_text())
    document["tensors"]["outputs"]["shape"] = [3]
    (folder / "tensors.json").write_text(json.dumps(document))
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=folder)
    assert caught.value.message == "There are 4 inputs and 3 outputs; there must be one output for each input."
