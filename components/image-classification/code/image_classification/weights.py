"""Writes and reads a network's weights as safetensors.

A user can continue the training with them. Reading a safetensors file runs no code from it.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from image_classification.artifacts import Source
from image_classification.models import ModelDescription
from image_classification.networks import build

__all__ = ["count_parameters", "load_network", "save_weights"]


def save_weights(network: nn.Module, path: Path) -> None:
    """Write all weights and running statistics."""
    save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, path)


def load_network(source: Source) -> nn.Sequential:
    """Return the network of a model artifact, in evaluation mode."""
    model = ModelDescription.read(source)
    network = build(model.architecture, model.shape, len(model.classes))
    network.load_state_dict(load_file(source.path(model.weights.path)))
    return network.eval()


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights that the training changes."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
