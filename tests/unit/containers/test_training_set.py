"""The training-set tool: its split is stratified, complete and seeded, and it refuses classes that are too small."""

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
    """Each input keeps its output."""
    inputs = np.concatenate([load(training_set, "train-inputs"), load(training_set, "validation-inputs")])
    outputs = np.concatenate([load(training_set, "train-outputs"), load(training_set, "validation-outputs")])
    found = sorted((x.tobytes(), int(y)) for x, y in zip(inputs, outputs, strict=True))
    expected = zip(load(tensors, "inputs"), load(tensors, "outputs"), strict=True)
    assert found == sorted((x.tobytes(), int(y)) for x, y in expected)


def test_classes_keep_their_shares(training_set: Path) -> None:
    """A fifth of each class is for validation. `tensors.json` has the counts."""
    assert np.bincount(load(training_set, "validation-outputs")).tolist() == [8, 8, 8, 8]
    document = json.loads((training_set / "tensors.json").read_text())
    assert document["class_counts"] == {"train": [32, 32, 32, 32], "validation": [8, 8, 8, 8]}
    assert document["split"] == {"validation_fraction": 0.2, "seed": 0}
    assert document["format"] == "com.bonseyes.training-set"
    assert set(document["tensors"]) == {"train_inputs", "train_outputs", "validation_inputs", "validation_outputs"}


def test_equal_seeds_give_equal_splits(make: Make, tensors: Path, training_set: Path) -> None:
    """Another seed gives another split."""
    again, other = make("training-set", tensors=tensors), make("training-set", tensors=tensors, seed=1)
    same = (training_set / "tensors.json").read_bytes()
    assert (again / "tensors.json").read_bytes() == same
    assert load(other, "validation-inputs").tobytes() != load(training_set, "validation-inputs").tobytes()


def test_small_classes_are_in_both_parts(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """Even with the smallest fraction, each part has at least one sample of each class."""
    made = make("training-set", tensors=write_tensors(tmp_path, [0] * 50 + [1] * 2), validation_fraction=0.01)
    assert np.bincount(load(made, "validation-outputs")).tolist() == [1, 1]
    made = make("training-set", tensors=write_tensors(tmp_path, [0] * 50 + [1] * 2), validation_fraction=0.9)
    assert np.bincount(load(made, "train-outputs")).tolist() == [5, 1]


def test_a_class_with_one_sample_is_refused(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """The message names the class. A class without samples is allowed."""
    folder = write_tensors(tmp_path, [0, 0, 0, 1, 3, 3], classes=["ant", "bee", "cat", "dog"])
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=folder)
    assert caught.value.message == (
        "These classes have too few samples: bee (1);"
        " a class needs at least 2 samples, one to train and one to validate with, or none."
    )


def test_labels_may_have_gaps(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """EMNIST has such a gap: it has no samples of class 0. A class without samples is in neither part."""
    made = make("training-set", tensors=write_tensors(tmp_path, [1, 1, 1, 3, 3, 3], classes=list("abcde")))
    document = json.loads((made / "tensors.json").read_text())
    assert document["class_counts"] == {"train": [0, 2, 0, 2, 0], "validation": [0, 1, 0, 1, 0]}
    assert document["classes"] == list("abcde")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "The tensors hold no samples; a split needs at least two."),
        ([0, 0, -1], "There are labels from -1 to 0; 2 classes need labels from 0 to 1."),
        ([0, 0, 2], "There are labels from 0 to 2; 2 classes need labels from 0 to 1."),
    ],
)
def test_labels_that_cannot_be_split_are_refused(
    make: Make, tmp_path: Path, write_tensors: Callable[..., Path], labels: list[int], message: str
) -> None:
    """There are no samples, or a label is not the number of a class."""
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=write_tensors(tmp_path, labels, classes=["a", "b"]))
    assert caught.value.message == message


def test_tensors_that_contradict_their_description_are_refused(make: Make, tensors: Path, tmp_path: Path) -> None:
    """One tensor is truncated, another has the wrong shape."""
    (tmp_path / "tensors.json").write_bytes((tensors / "tensors.json").read_bytes())
    (tmp_path / "inputs.npy").write_bytes((tensors / "inputs.npy").read_bytes()[:-1])
    (tmp_path / "outputs.npy").write_bytes((tensors / "outputs.npy").read_bytes())
    with pytest.raises(ToolError, match=r"^inputs\.npy is not a whole \.npy file: "):
        make("training-set", tensors=tmp_path)
    np.save(tmp_path / "outputs.npy", np.zeros(3, np.int64))
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=tmp_path)
    assert caught.value.message == (
        "outputs.npy is int64 of shape (3,), but tensors.json promises int64 of shape (160,)."
    )


def test_different_numbers_of_inputs_and_outputs_are_refused(
    make: Make, tmp_path: Path, write_tensors: Callable[..., Path]
) -> None:
    """Otherwise inputs get the labels of other inputs."""
    folder = write_tensors(tmp_path, [0, 0, 1, 1])
    np.save(folder / "outputs.npy", np.array([0, 0, 1], np.int64))
    document = json.loads((folder / "tensors.json").read_text())
    document["tensors"]["outputs"]["shape"] = [3]
    (folder / "tensors.json").write_text(json.dumps(document))
    with pytest.raises(ToolError) as caught:
        make("training-set", tensors=folder)
    assert caught.value.message == "There are 4 inputs and 3 outputs; there must be one output for each input."
