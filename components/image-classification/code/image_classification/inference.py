"""Runs an ONNX model with onnxruntime and measures its latency.

The benchmarking tool calls it. The training tool compares its model's scores with it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoModel,
    NoSuchFile,
    RuntimeException,
)
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

from bonseyes_dagster.errors import ToolError

__all__ = ["Classifier", "Latency"]

_WARM_UP = 10
# onnxruntime's errors have no common base class except Exception.
_LOAD_ERRORS = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoModel,
    NoSuchFile,
    NotImplemented_,
    RuntimeException,
)


@dataclass(frozen=True, slots=True)
class Latency:
    """The time for one sample alone, from `samples` measurements."""

    samples: int
    median_ms: float
    mean_ms: float
    p95_ms: float


class Classifier:
    """An ONNX model with one input (batch, ...) and one output (batch, classes), on the CPU."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        # By default onnxruntime pins a thread to each core of the machine, also to cores that this process may not use.
        self.threads = options.intra_op_num_threads = len(os.sched_getaffinity(0))
        # Waiting threads sleep: spinning slows the other work of the machine, and the next measurement.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except _LOAD_ERRORS as error:
            raise ToolError(f"onnxruntime cannot load {path.name}: {str(error).rstrip('.')}.") from error
        self._input = self._session.get_inputs()[0]
        self._output = self._session.get_outputs()[0]

    @property
    def sample_shape(self) -> tuple[Any, ...]:
        """Return the shape of one sample, without the batch axis."""
        return tuple(self._input.shape[1:])

    @property
    def class_count(self) -> Any:
        """Return the number of scores per sample."""
        return self._output.shape[1]

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (batch, classes) scores."""
        result: NDArray[np.float32] = self._session.run([self._output.name], {self._input.name: inputs})[0]
        return result

    def classify(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return for each sample the index of the class with the highest score."""
        numbers: NDArray[np.int64] = self.scores(inputs).argmax(axis=1)
        return numbers

    def measure_latency(self, inputs: NDArray[np.float32]) -> Latency:
        """Run the model on each sample alone, after some runs to warm up. Return the times."""
        samples = [np.ascontiguousarray(inputs[index : index + 1]) for index in range(len(inputs))]
        for index in range(_WARM_UP):
            self.scores(samples[index % len(samples)])
        times_ms = []
        for sample in samples:
            start = time.perf_counter()
            self.scores(sample)
            times_ms.append((time.perf_counter() - start) * 1000)
        return Latency(
            len(samples),
            float(np.median(times_ms)),
            float(np.mean(times_ms)),
            float(np.percentile(times_ms, 95)),
        )
