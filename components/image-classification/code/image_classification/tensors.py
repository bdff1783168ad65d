"""Reads and writes tensors: `.npy` files that other programs can map into memory, and their `tensors.json`.

The export tool writes tensors. The training-set, training and benchmarking tools read them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bonseyes_dagster.errors import ToolError
from image_classification.artifacts import Source, Target, read_description, write_json

__all__ = [
    "DESCRIPTION",
    "TENSORS",
    "TRAINING_SET",
    "Tensor",
    "TensorFile",
    "TensorSet",
    "blocks",
    "count_labels",
    "open_tensor",
]

TENSORS = "com.bonseyes.tensors"
TRAINING_SET = "com.bonseyes.training-set"
FORMAT_VERSION = 1
DESCRIPTION = "tensors.json"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One `.npy` file."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSet:
    """The content of `tensors.json`: the tensors by name, the names of the classes, and the images' preprocessing."""

    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    preprocessing: Mapping[str, Any]

    def write(self, target: Target, artifact_format: str, **more: Any) -> None:
        """Write `tensors.json`."""
        document = {
            "format": artifact_format,
            "format_version": FORMAT_VERSION,
            "tensors": {name: asdict(tensor) for name, tensor in self.tensors.items()},
            "classes": list(self.classes),
            "preprocessing": dict(self.preprocessing),
            **more,
        }
        write_json(target, DESCRIPTION, document)

    @classmethod
    def read(cls, source: Source, artifact_format: str) -> Self:
        """Read an artifact's `tensors.json`. Raise ToolError when the file does not have this format."""
        document = read_description(source, DESCRIPTION, artifact_format, FORMAT_VERSION)
        try:
            tensors = {
                name: Tensor(**{**entry, "shape": tuple(entry["shape"])}) for name, entry in document["tensors"].items()
            }
            return cls(tensors=tensors, classes=tuple(document["classes"]), preprocessing=document["preprocessing"])
        except (KeyError, TypeError) as error:
            raise ToolError(f"{DESCRIPTION} is incomplete: {error}.") from error

    def open(self, source: Source, name: str) -> NDArray[Any]:
        """Return a tensor, mapped into memory. Raise ToolError when the file contradicts `tensors.json`."""
        tensor = self._tensor(name)
        array = open_tensor(source.path(tensor.path))
        if array.shape != tensor.shape or array.dtype != np.dtype(tensor.dtype):
            raise ToolError(
                f"{tensor.path} is {array.dtype} of shape {array.shape}, but {DESCRIPTION} promises"
                f" {tensor.dtype} of shape {tensor.shape}."
            )
        return array

    def blocks(self, source: Source, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield a tensor's rows in order. At most `rows` rows are in memory at once."""
        self.open(source, name)  # for its checks
        return blocks(source.path(self._tensor(name).path), rows)

    def _tensor(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ToolError(f"{DESCRIPTION} lists no tensor `{name}`; it lists {', '.join(self.tensors) or 'nothing'}.")
        return self.tensors[name]


class TensorFile:
    """Writes a `.npy` file from blocks of rows, in order. Only one block is in memory. A context manager."""

    def __init__(self, target: Target, path: str, shape: Sequence[int], dtype: DTypeLike) -> None:
        self._path = path
        self._shape = tuple(int(side) for side in shape)
        self._dtype = np.dtype(dtype)
        self._place = target.path(path)
        self._file = self._place.open("wb")
        self._hash = hashlib.sha256()
        self._rows = 0
        self._write(_header(self._shape, self._dtype))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, block: NDArray[Any]) -> None:
        """Add rows."""
        if block.shape[1:] != self._shape[1:]:
            raise ValueError(f"The rows have the shape {block.shape[1:]}; the tensor has the shape {self._shape}.")
        self._rows += len(block)
        self._write(np.ascontiguousarray(block, dtype=self._dtype).data)

    def finish(self) -> Tensor:
        """Close the file. Raise ValueError when it has too few or too many rows."""
        if self._rows != self._shape[0]:
            raise ValueError(f"{self._path} has {self._rows} rows; it must have {self._shape[0]}.")
        self._file.close()
        size = self._place.stat().st_size
        return Tensor(self._path, self._shape, self._dtype.name, size, self._hash.hexdigest())

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def open_tensor(path: Path) -> NDArray[Any]:
    """Return a `.npy` file, mapped into memory, read-only. Raise ToolError when it is broken or truncated."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ToolError(f"{path.name} is not a whole .npy file: {error}.") from error
    if not array.flags.c_contiguous:
        raise ToolError(f"{path.name} is in Fortran order; it must be in C order.")
    return array


def blocks(path: Path, rows: int) -> Iterator[NDArray[Any]]:
    """Yield a `.npy` file's rows in order. Ordinary reads: the file does not stay mapped."""
    array = open_tensor(path)
    shape, dtype, offset = array.shape, array.dtype, array.offset if isinstance(array, np.memmap) else 0
    del array
    row_values = int(np.prod(shape[1:], dtype=np.int64))
    with path.open("rb") as file:
        file.seek(offset)
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            yield np.fromfile(file, dtype, count * row_values).reshape(count, *shape[1:])


def count_labels(labels: NDArray[np.int64], class_count: int) -> NDArray[np.int64]:
    """Return the number of samples of each class. Raise ToolError when a label is not the number of a class."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < class_count:
        raise ToolError(
            f"There are labels from {labels.min()} to {labels.max()}; {class_count} classes need labels"
            f" from 0 to {class_count - 1}."
        )
    return np.bincount(labels, minlength=class_count)
