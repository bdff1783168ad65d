"""Writes a fitted network as an ONNX model, layer by layer, and compares the model's scores with torch's.

PyTorch has two exporters, but the old one is deprecated, and the new one takes seconds and warns. The networks are
plain sequences, so this module can write them in milliseconds. Equal weights give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bonseyes_dagster.errors import ToolError
from image_classification.inference import Classifier

__all__ = ["INPUT", "OUTPUT", "check_onnx", "write_onnx"]

INPUT = "inputs"
OUTPUT = "scores"
# These versions are old: every onnxruntime of the last years can read them, also on small devices.
_OPSET = 17
_IR_VERSION = 8
_TOLERANCE = 1e-4

Nodes = list[onnx.NodeProto]
Weights = list[onnx.TensorProto]


def write_onnx(
    network: nn.Sequential,
    path: Path,
    shape: tuple[int, int, int],
    class_count: int,
    metadata: Mapping[str, str],
) -> None:
    """Write the network for prediction, with a batch axis of any length. Raise TypeError for an unknown layer type."""
    nodes: Nodes = []
    weights: Weights = []
    value = INPUT
    for name, layer in network.named_children():
        value = _add_layer(name, layer, value, nodes, weights)
    nodes[-1].output[0] = OUTPUT
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", class_count])],
        weights,
    )
    model = helper.make_model(
        graph,
        producer_name="bonseyes-dagster",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_onnx(network: nn.Sequential, path: Path, inputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """Return the largest difference between onnxruntime's and torch's scores. Raise ToolError if it is too large."""
    with torch.inference_mode():
        expected = network(torch.from_numpy(inputs)).numpy()
    found = Classifier(path).scores(inputs)
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ToolError(f"The ONNX model's scores must equal the network's, but differ by up to {difference:g}.")
    return difference


def _add_layer(name: str, layer: nn.Module, value: str, nodes: Nodes, weights: Weights) -> str:
    """Append a layer's node and weights; return the name of its output."""
    if isinstance(layer, nn.Dropout):  # has no effect on predictions
        return value
    writer = _WRITERS.get(type(layer))
    if writer is None:
        raise TypeError(f"Layer {name} is a {type(layer).__name__}; add a function that writes it to _WRITERS.")
    operator, tensors, attributes = writer(layer)
    inputs = [value]
    for key, tensor in tensors:
        inputs.append(f"{name}.{key}")
        weights.append(numpy_helper.from_array(tensor.detach().cpu().numpy(), inputs[-1]))
    nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
    return name


Layer = tuple[str, Iterable[tuple[str, torch.Tensor]], dict[str, Any]]


def _conv(layer: nn.Conv2d) -> Layer:
    if isinstance(layer.padding, str):
        raise TypeError(f"The padding is {layer.padding!r}; it must be numbers.")
    down, right = layer.padding
    return (
        "Conv",
        layer.named_parameters(),
        {
            "kernel_shape": list(layer.kernel_size),
            "pads": [down, right, down, right],
            "strides": list(layer.stride),
            "dilations": list(layer.dilation),
            "group": layer.groups,
        },
    )


def _norm(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> Layer:
    keys = ("weight", "bias", "running_mean", "running_var")
    return "BatchNormalization", [(key, getattr(layer, key)) for key in keys], {"epsilon": layer.eps}


def _pool(layer: nn.MaxPool2d) -> Layer:
    size, stride = _pair(layer.kernel_size), _pair(layer.stride)
    return "MaxPool", (), {"kernel_shape": size, "strides": stride}


def _linear(layer: nn.Linear) -> Layer:
    return "Gemm", layer.named_parameters(), {"transB": 1}


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


_WRITERS: dict[type[nn.Module], Callable[..., Layer]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _norm,
    nn.BatchNorm2d: _norm,
    nn.MaxPool2d: _pool,
    nn.Linear: _linear,
    nn.ReLU: lambda layer: ("Relu", (), {}),
    nn.Flatten: lambda layer: ("Flatten", (), {"axis": 1}),
}
