"""Reads and writes `model.json`, which describes how to use a model's ONNX file and its weights.

The training tool writes it. The benchmarking tool reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bonseyes_dagster.errors import ToolError
from image_classification.artifacts import Source, Target, read_description, write_json

__all__ = ["DESCRIPTION", "FORMAT", "ModelDescription", "ModelFile"]

FORMAT = "com.bonseyes.model"
FORMAT_VERSION = 1
DESCRIPTION = "model.json"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model."""

    path: str
    size: int
    sha256: str

    @classmethod
    def of(cls, target: Target, path: str) -> Self:
        """Return the size and the sha256 of the existing file at `path`."""
        place: Path = target.path(path)
        with place.open("rb") as file:
            return cls(path, place.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """The content of `model.json`. `shape` is (channels, height, width)."""

    architecture: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    input_name: str
    output_name: str
    parameter_count: int
    preprocessing: Mapping[str, Any]
    onnx: ModelFile
    weights: ModelFile
    training: Mapping[str, Any]

    def write(self, target: Target) -> None:
        """Write `model.json`."""
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "parameter_count": self.parameter_count,
            "classes": list(self.classes),
            "input": {"name": self.input_name, "dtype": "float32", "shape": ["batch", *self.shape]},
            "output": {"name": self.output_name, "dtype": "float32", "shape": ["batch", len(self.classes)]},
            "preprocessing": dict(self.preprocessing),
            "files": {"onnx": asdict(self.onnx), "weights": asdict(self.weights)},
            "training": dict(self.training),
        }
        write_json(target, DESCRIPTION, document)

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read an artifact's `model.json`. Raise ToolError when the file does not describe a model."""
        document = read_description(source, DESCRIPTION, FORMAT, FORMAT_VERSION)
        try:
            channels, height, width = document["input"]["shape"][1:]
            return cls(
                architecture=document["architecture"],
                classes=tuple(document["classes"]),
                shape=(channels, height, width),
                input_name=document["input"]["name"],
                output_name=document["output"]["name"],
                parameter_count=document["parameter_count"],
                preprocessing=document["preprocessing"],
                onnx=ModelFile(**document["files"]["onnx"]),
                weights=ModelFile(**document["files"]["weights"]),
                training=document["training"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ToolError(f"{DESCRIPTION} is incomplete: {error}.") from error
