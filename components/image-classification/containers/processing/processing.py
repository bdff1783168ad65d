"""The processing tool: adds a normalised view to each sample of a dataset. It can augment the view."""

from __future__ import annotations

import image_classification  # noqa: F401  # first: it keeps the libraries below quiet
import pyarrow as pa
from image_classification.artifacts import Source, Work
from image_classification.dataset import Dataset, DatasetWriter, View, add_view, rows_within
from image_classification.images import decode_png, make_view
from PIL import Image

from bonseyes_dagster.errors import ToolError

__all__ = ["create"]


def create(
    artifact: Work,
    *,
    dataset: Source,
    size: int = 28,
    mean: float = 0.5,
    std: float = 0.5,
    augment: bool = False,
    seed: int = 0,
    view: str = "normalised",
) -> None:
    """Copy the dataset batch by batch and add the view."""
    known = Dataset.read(dataset)
    channels = known.image.channels
    added = View(
        width=size,
        height=size,
        channels=channels,
        mean=mean,
        std=std,
        augmented=augment,
        seed=seed if augment else None,
    )
    with DatasetWriter(artifact, known.image, {**known.views, view: added}) as writer:
        done = 0
        for batch in known.batches(dataset, rows_within(writer.sample_bytes)):
            values = [
                make_view(added, _decode(sample, channels), done + index)
                for index, sample in enumerate(batch.column("image"))
            ]
            writer.write(add_view(batch, writer.schema, view, values))
            done += batch.num_rows
            artifact.set_progress(done, known.count, "images")
        writer.finish(known.classes, known.class_counts)
    print(f"View {view}: {done:,} images of {size} x {size} pixels" + ", augmented" * augment)


def _decode(sample: pa.BinaryScalar, channels: int) -> Image.Image:
    try:
        return decode_png(sample.as_py(), channels)
    except (OSError, ValueError) as error:
        raise ToolError(f"The dataset has an image that is not a readable PNG: {str(error).rstrip('.')}.") from error
