"""Builds the networks: plain sequences of layers for any image size and any number of classes."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["NETWORKS", "build"]

_SMALLEST_MAP = 8
_FIRST_WIDTH = 16
_MOST_CHANNELS = 128
_HIDDEN = 128
_WIDE = 512
_DROPOUT = 0.3


def build(name: str, shape: tuple[int, int, int], class_count: int) -> nn.Sequential:
    """Return a network. It maps (batch, channels, height, width) float32 to (batch, class_count) scores."""
    return NETWORKS[name](shape, class_count)


def cnn(shape: tuple[int, int, int], class_count: int) -> nn.Sequential:
    """Return convolutions, then two dense layers. The convolutions halve the map until its smaller side is under 8."""
    channels, height, width = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    stage = 0
    while stage < 2 or min(height, width) >= _SMALLEST_MAP:
        stage += 1
        wider = min(_FIRST_WIDTH * 2**stage // 2, _MOST_CHANNELS)
        layers[f"conv{stage}"] = nn.Conv2d(channels, wider, 3, padding=1, bias=False)
        layers[f"norm{stage}"] = nn.BatchNorm2d(wider)
        layers[f"relu{stage}"] = nn.ReLU()
        if min(height, width) >= _SMALLEST_MAP:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
        channels = wider
    layers["flatten"] = nn.Flatten()
    _add_dense(layers, "hidden", channels * height * width, _HIDDEN)
    layers["scores"] = nn.Linear(_HIDDEN, class_count)
    return nn.Sequential(layers)


def mlp(shape: tuple[int, int, int], class_count: int) -> nn.Sequential:
    """Return two hidden dense layers, of 512 and 256 values, over the flattened image."""
    channels, height, width = shape
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    _add_dense(layers, "hidden1", channels * height * width, _WIDE)
    _add_dense(layers, "hidden2", _WIDE, _WIDE // 2)
    layers["scores"] = nn.Linear(_WIDE // 2, class_count)
    return nn.Sequential(layers)


def _add_dense(layers: OrderedDict[str, nn.Module], name: str, inputs: int, outputs: int) -> None:
    layers[name] = nn.Linear(inputs, outputs, bias=False)
    layers[f"{name}_norm"] = nn.BatchNorm1d(outputs)
    layers[f"{name}_relu"] = nn.ReLU()
    layers[f"{name}_dropout"] = nn.Dropout(_DROPOUT)


NETWORKS = {"cnn": cnn, "mlp": mlp}
