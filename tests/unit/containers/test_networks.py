"""The networks: any image size, any number of classes, and equal scores from onnxruntime and torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

SHAPES = [(1, 4, 4), (1, 8, 8), (1, 12, 10), (3, 28, 28), (1, 5, 40), (1, 128, 128)]


@pytest.mark.parametrize("name", ["cnn", "mlp"])
@pytest.mark.parametrize("shape", SHAPES)
def test_onnx_scores_equal_torch_scores(name: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    """For each size the ONNX model is valid, and only rounding makes a difference."""
    from image_classification.networks import build
    from image_classification.onnx_model import check_onnx, write_onnx

    torch.manual_seed(0)
    network = build(name, shape, 7)
    inputs = torch.rand(5, *shape)
    network(inputs)  # in training mode, so the running statistics are no longer 0 and 1
    network.eval()
    write_onnx(network, tmp_path / "model.onnx", shape, 7, {"classes": "a,b"})
    assert check_onnx(network, tmp_path / "model.onnx", inputs.numpy()) < 1e-4
    model = onnx.load(tmp_path / "model.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {entry.key: entry.value for entry in model.metadata_props} == {"classes": "a,b"}


def test_an_onnx_model_with_other_weights_is_refused(tmp_path: Path) -> None:
    """This shows that the comparison can fail."""
    from image_classification.networks import build
    from image_classification.onnx_model import check_onnx, write_onnx

    from bonseyes_dagster.errors import ToolError

    one, other = build("mlp", (1, 8, 8), 3).eval(), build("mlp", (1, 8, 8), 3).eval()
    write_onnx(one, tmp_path / "model.onnx", (1, 8, 8), 3, {})
    with pytest.raises(ToolError, match=r"^The ONNX model's scores must equal the network's, but differ by up to "):
        check_onnx(other, tmp_path / "model.onnx", np.ones((2, 1, 8, 8), np.float32))


def test_a_layer_type_without_a_writer_is_refused(tmp_path: Path) -> None:
    """The message tells a developer which layer type needs a writer."""
    from image_classification.onnx_model import write_onnx

    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Tanh())
    with pytest.raises(TypeError, match=r"^Layer 2 is a Tanh; add a function that writes it to _WRITERS\.$"):
        write_onnx(network, tmp_path / "model.onnx", (1, 2, 2), 2, {})
