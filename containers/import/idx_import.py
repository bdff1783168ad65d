"""The import tool: makes a dataset from a pair of IDX archives (images, labels)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import image_classification  # noqa: F401  # first: it keeps the libraries below quiet
import numpy as np
import pyarrow as pa
from idx import IdxArchive
from image_classification.artifacts import Work
from image_classification.dataset import Dataset, DatasetWriter, ImageShape, rows_within
from image_classification.images import encode_png
from numpy.typing import NDArray

from bonseyes_dagster.errors import ToolError

__all__ = ["create"]


def create(artifact: Work, *, images: Path, labels: Path, class_names: Sequence[str] | None = None) -> None:
    """Read both archives side by side, a few MiB at a time, and write the dataset's shards."""
    with IdxArchive(images, "images", 3) as image_archive, IdxArchive(labels, "labels", 1) as label_archive:
        _check_counts(image_archive, label_archive)
        dataset = _write(artifact, image_archive, label_archive, class_names)
        image_archive.check_end()
        label_archive.check_end()
    print(f"{dataset.count:,} images of {dataset.image.width} x {dataset.image.height} pixels")
    for name, count in zip(dataset.classes, dataset.class_counts, strict=True):
        print(f"  class {name}: {count:,}")


def _check_counts(images: IdxArchive, labels: IdxArchive) -> None:
    if images.count != labels.count:
        raise ToolError(
            f"The images archive holds {images.count:,} images, but the labels archive holds {labels.count:,} labels;"
            " there must be one label for each image."
        )


def _write(artifact: Work, images: IdxArchive, labels: IdxArchive, class_names: Sequence[str] | None) -> Dataset:
    height, width = images.shape[1:]
    counts = np.zeros(256, np.int64)
    with DatasetWriter(artifact, ImageShape(width, height, 1)) as writer:
        done = 0
        for pixels, classes in _batches(images, labels):
            _check_labels(classes, class_names, done)
            counts += np.bincount(classes, minlength=256)
            writer.write(_batch(writer.schema, done, pixels, classes))
            done += len(classes)
            artifact.set_progress(done, images.count, "images")
        names = class_names or [str(index) for index in range(int(counts.nonzero()[0].max()) + 1)]
        return writer.finish(names, [int(count) for count in counts[: len(names)]])


def _batches(images: IdxArchive, labels: IdxArchive) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    rows = rows_within(images.shape[1] * images.shape[2])
    for _ in range(0, images.count, rows):
        yield images.read(rows), labels.read(rows)


def _check_labels(classes: NDArray[np.uint8], class_names: Sequence[str] | None, first: int) -> None:
    if class_names is None:
        return
    beyond = np.flatnonzero(classes >= len(class_names))
    if len(beyond):
        raise ToolError(
            f"The label of sample {first + int(beyond[0]):,} is {classes[beyond[0]]}, but class-names names"
            f" {len(class_names)} classes; labels must be between 0 and {len(class_names) - 1}."
        )


def _batch(schema: pa.Schema, first: int, pixels: NDArray[np.uint8], classes: NDArray[np.uint8]) -> pa.RecordBatch:
    labels = pa.array(classes, pa.int32())
    annotations = pa.StructArray.from_arrays([labels], fields=list(schema.field("annotations").type))
    columns = [
        pa.array([f"{index:09}" for index in range(first, first + len(pixels))], pa.string()),
        pa.array([encode_png(image) for image in pixels], pa.binary()),
        annotations,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
