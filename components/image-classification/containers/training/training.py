"""The training tool: trains a model on a training set. The model does not need torch to run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import image_classification  # noqa: F401  # first: it keeps the libraries below quiet
import numpy as np
from image_classification.artifacts import Source, Work
from image_classification.fitting import Epoch, Plan, Samples, Summary, fit, seed_everything, select_device
from image_classification.models import ModelDescription, ModelFile
from image_classification.networks import build
from image_classification.onnx_model import INPUT, OUTPUT, check_onnx, write_onnx
from image_classification.tensors import TRAINING_SET, TensorSet
from image_classification.weights import count_parameters, save_weights
from torch import nn

from bonseyes_dagster.errors import ToolError

__all__ = ["create"]

_CHECKED_SAMPLES = 64
_FEWEST_SAMPLES = 2


def create(
    artifact: Work,
    *,
    training_set: Source,
    model: str = "cnn",
    epochs: int = 30,
    learning_rate: float = 0.001,
    batch_size: int = 64,
    patience: int = 8,
    seed: int = 0,
    cost_function: str = "cross-entropy",
    augment: bool = True,
    device: str = "auto",
) -> None:
    """Fit the network, report each epoch, check the ONNX model with onnxruntime, and write the model's files."""
    tensors = TensorSet.read(training_set, TRAINING_SET)
    train, validation = (_samples(tensors, training_set, part) for part in ("train", "validation"))
    plan = Plan(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        patience=patience,
        seed=seed,
        cost_function=cost_function,
        augment=augment,
    )
    seed_everything(seed)
    chosen = select_device(device)
    shape = _shape(train)
    network = build(model, shape, len(tensors.classes))
    print(f"{model} with {count_parameters(network):,} weights, {len(train):,} samples, on {chosen.type}")

    def report(epoch: Epoch) -> None:
        _report(artifact, epoch, epochs)

    summary = fit(network, train, validation, plan, chosen, report)
    _print_end(summary)
    training = {**asdict(plan), "device": chosen.type, **asdict(summary), "samples": len(train)}
    _write(artifact, network, model, shape, tensors, training, np.array(validation.inputs[:_CHECKED_SAMPLES]))


def _samples(tensors: TensorSet, source: Source, part: str) -> Samples:
    samples = Samples(tensors.open(source, f"{part}_inputs"), tensors.open(source, f"{part}_outputs"))
    if not len(samples) or len(samples.inputs) != len(samples.outputs):
        raise ToolError(
            f"The {part} part of the training set has {len(samples.inputs):,} inputs and {len(samples.outputs):,}"
            " outputs; it must have one output for each input, and at least one of both."
        )
    if part == "train" and len(samples) < _FEWEST_SAMPLES:
        raise ToolError(f"The training set has 1 sample to train with; it must have at least {_FEWEST_SAMPLES}.")
    return samples


def _shape(samples: Samples) -> tuple[int, int, int]:
    if samples.inputs.ndim != 4:
        raise ToolError(
            f"The inputs have the shape {samples.inputs.shape}; it must be (samples, channels, height, width)."
        )
    channels, height, width = samples.inputs.shape[1:]
    return channels, height, width


def _report(artifact: Work, epoch: Epoch, epochs: int) -> None:
    for name in ("train_loss", "validation_loss", "validation_accuracy", "learning_rate"):
        artifact.scalar(name, epoch.number, getattr(epoch, name))
    accuracy = f"validation accuracy {epoch.validation_accuracy:.2%}"
    artifact.set_progress(epoch.number, epochs, "epochs", accuracy)
    print(
        f"epoch {epoch.number:>3}: train loss {epoch.train_loss:.4f}, validation loss {epoch.validation_loss:.4f},"
        f" {accuracy}",
        flush=True,
    )


def _print_end(summary: Summary) -> None:
    why = "no lower validation loss within the patience" if summary.stopped_early else "all epochs are done"
    print(f"ended after epoch {summary.epochs_run} ({why}); the model has the weights of epoch {summary.best.number}")


def _write(
    artifact: Work,
    network: nn.Sequential,
    architecture: str,
    shape: tuple[int, int, int],
    tensors: TensorSet,
    training: dict[str, Any],
    inputs: np.ndarray[Any, np.dtype[np.float32]],
) -> None:
    onnx_path = artifact.path("model.onnx")
    write_onnx(network, onnx_path, shape, len(tensors.classes), {"classes": json.dumps(tensors.classes)})
    difference = check_onnx(network, onnx_path, inputs)
    print(f"onnxruntime's scores differ from torch's by at most {difference:.1e}")
    save_weights(network, artifact.path("model.safetensors"))
    ModelDescription(
        architecture=architecture,
        classes=tensors.classes,
        shape=shape,
        input_name=INPUT,
        output_name=OUTPUT,
        parameter_count=count_parameters(network),
        preprocessing=tensors.preprocessing,
        onnx=ModelFile.of(artifact, "model.onnx"),
        weights=ModelFile.of(artifact, "model.safetensors"),
        training=training,
    ).write(artifact)
