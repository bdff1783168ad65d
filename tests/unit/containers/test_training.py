"""The training tool: its files, its metrics and its progress, its results, and its seed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bonseyes_dagster.errors import InvalidError, ToolError

Make = Callable[..., Path]


def curve(model: Path, name: str) -> list[tuple[int, float]]:
    """Return the steps and values of a metric, from the file that the container serves."""
    lines = next((model.parent / "metrics").rglob(f"{name}*")).read_text().splitlines()
    return [(int(step), float(value)) for _, step, value in map(str.split, lines)]


def test_model_json_describes_every_file_of_the_model(model: Path, training_set: Path) -> None:
    """A user needs only `model.json` to use the model."""
    document = json.loads((model / "model.json").read_text())
    files = {entry["path"]: entry["size"] for entry in document["files"].values()}
    assert files == {name: (model / name).stat().st_size for name in ("model.onnx", "model.safetensors")}
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.onnx", "model.safetensors"]
    tensors = json.loads((training_set / "tensors.json").read_text())
    assert document["classes"] == tensors["classes"]
    assert document["preprocessing"] == tensors["preprocessing"]
    assert document["input"] == {"name": "inputs", "dtype": "float32", "shape": ["batch", 1, 12, 12]}
    assert document["output"] == {"name": "scores", "dtype": "float32", "shape": ["batch", 4]}
    assert document["training"]["epochs_run"] == 6
    assert document["training"]["device"] in ("cpu", "cuda")


def test_the_onnx_model_classifies_new_samples(model: Path, test_tensors: Path) -> None:
    """The ONNX file is valid, works without torch, and accepts batches of any length."""
    onnx.checker.check_model(str(model / "model.onnx"), full_check=True)
    assert json.loads(onnx.load(model / "model.onnx").metadata_props[0].value) == ["0", "1", "2", "3"]
    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])
    inputs, outputs = np.load(test_tensors / "inputs.npy"), np.load(test_tensors / "outputs.npy")
    (scores,) = session.run(["scores"], {"inputs": inputs})
    (one,) = session.run(["scores"], {"inputs": inputs[:1]})
    assert np.allclose(one, scores[:1], atol=1e-4)
    assert float((scores.argmax(axis=1) == outputs).mean()) >= 0.9


def test_the_safetensors_weights_give_the_scores_of_the_onnx_model(model: Path, test_tensors: Path) -> None:
    """A user can continue the training with these weights."""
    from image_classification.artifacts import Folder
    from image_classification.inference import Classifier
    from image_classification.weights import load_network

    inputs = np.load(test_tensors / "inputs.npy")
    with torch.inference_mode():
        scores = load_network(Folder(model))(torch.from_numpy(inputs)).numpy()
    assert np.allclose(scores, Classifier(model / "model.onnx").scores(inputs), atol=1e-4)


def test_each_epoch_is_a_point_of_the_learning_curves(model: Path) -> None:
    """The loss falls, and the learning rate falls, too."""
    losses = curve(model, "train_loss")
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert losses[-1][1] < losses[0][1]
    assert all(math.isfinite(value) for _, value in curve(model, "validation_loss"))
    assert 0 <= curve(model, "validation_accuracy")[-1][1] <= 1
    rates = [value for _, value in curve(model, "learning_rate")]
    assert rates[0] == 0.001
    assert rates == sorted(rates, reverse=True)


def test_the_last_progress_is_the_last_epoch(model: Path) -> None:
    """Its message has the validation accuracy."""
    progress = json.loads((model.parent / "progress.json").read_text())
    assert (progress["done"], progress["total"], progress["unit"]) == (6, 6, "epochs")
    assert progress["message"].startswith("validation accuracy ")


def test_equal_seeds_give_equal_models(make: Make, training_set: Path) -> None:
    """All files have the same bytes. Another seed gives other bytes."""
    made = [make("training", training_set=training_set, epochs=2, model="mlp", seed=seed) for seed in (3, 3, 4)]
    for name in ("model.onnx", "model.safetensors", "model.json"):
        one, same, other = ((folder / name).read_bytes() for folder in made)
        assert one == same
        assert one != other


def test_an_early_stop_keeps_the_weights_of_the_best_epoch(make: Make, training_set: Path) -> None:
    """The training stops after `patience` epochs without a lower validation loss."""
    made = make("training", training_set=training_set, epochs=60, patience=2, learning_rate=0.05, model="mlp")
    training = json.loads((made / "model.json").read_text())["training"]
    losses = dict(curve(made, "validation_loss"))
    assert training["stopped_early"]
    assert training["epochs_run"] < 60
    assert training["best"]["number"] == training["epochs_run"] - 2
    assert min(losses, key=losses.__getitem__) == training["best"]["number"]

    from image_classification.inference import Classifier

    inputs = np.load(training_set / "validation-inputs.npy")
    outputs = np.load(training_set / "validation-outputs.npy")
    accuracy = float((Classifier(made / "model.onnx").classify(inputs) == outputs).mean())
    assert accuracy == pytest.approx(training["best"]["validation_accuracy"])


def test_the_cost_function_parameter_has_an_effect(make: Make, training_set: Path) -> None:
    """With label smoothing, the loss cannot fall to 0."""
    plain, smooth = (
        make("training", training_set=training_set, epochs=8, model="mlp", cost_function=cost)
        for cost in ("cross-entropy", "label-smoothing")
    )
    assert curve(smooth, "train_loss")[-1][1] > curve(plain, "train_loss")[-1][1] + 0.1


def test_a_diverging_training_fails(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """The message says which parameter to change."""
    folder = write_tensors(tmp_path, [0, 1] * 20)
    values = np.load(folder / "inputs.npy")
    values[:] = np.inf
    np.save(folder / "inputs.npy", values)
    split = make("training-set", tensors=folder)
    with pytest.raises(ToolError) as caught:
        make("training", training_set=split, epochs=2, augment=False)
    assert caught.value.message == (
        "The training diverged in epoch 1: the loss is not a finite number; choose a smaller learning-rate."
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_fails(make: Make, training_set: Path) -> None:
    """The tool does not silently train on the CPU."""
    with pytest.raises(ToolError) as caught:
        make("training", training_set=training_set, device="cuda")
    assert caught.value.message == "The device is `cuda`, but there is no usable GPU; choose `auto` or `cpu`."


@pytest.mark.parametrize(
    "parameters",
    [
        {"model": "rnn"},
        {"epochs": 0},
        {"learning_rate": 0},
        {"batch_size": 1},
        {"patience": 0},
        {"cost_function": "l1"},
    ],
)
def test_invalid_parameters_are_refused(make: Make, training_set: Path, parameters: dict[str, Any]) -> None:
    """The tool does not start with them."""
    with pytest.raises(InvalidError):
        make("training", training_set=training_set, **parameters)


def test_a_last_batch_of_one_sample_is_skipped(make: Make, tmp_path: Path, write_tensors: Callable[..., Path]) -> None:
    """Batch normalisation fails on one sample. The training works with any number of samples."""
    split = make("training-set", tensors=write_tensors(tmp_path, [0] * 4 + [1] * 5), validation_fraction=0.5)
    made = make("training", training_set=split, epochs=1, batch_size=2)
    assert json.loads((made / "model.json").read_text())["training"]["samples"] == 5
