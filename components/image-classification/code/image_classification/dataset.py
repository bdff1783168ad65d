"""Reads and writes datasets: `dataset.json`, and Parquet shards of images, annotations and views.

Only one batch of samples is in memory at once. The import, processing and export tools use this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from bonseyes_dagster.errors import ToolError
from image_classification.artifacts import Source, Target, read_description, write_json

__all__ = [
    "DESCRIPTION",
    "FORMAT",
    "Dataset",
    "DatasetWriter",
    "ImageShape",
    "Shard",
    "View",
    "add_view",
    "rows_within",
]

FORMAT = "com.bonseyes.dataset"
FORMAT_VERSION = 1
DESCRIPTION = "dataset.json"

# The limits of a batch. A batch is in memory at once, and it is one row group of a shard.
_BATCH_BYTES = 4 * 2**20
_BATCH_SAMPLES = 1000
_SHARD_BYTES = 128 * 2**20
_SHARD_SAMPLES = 10_000


def rows_within(sample_bytes: int) -> int:
    """Return how many samples of this size make a batch: at most 4 MiB and 1000 samples, but at least one sample."""
    return max(1, min(_BATCH_SAMPLES, _BATCH_BYTES // max(1, sample_bytes)))


@dataclass(frozen=True, slots=True)
class ImageShape:
    """The shape of all images of a dataset. 1 channel is grey; 3 channels are red, green and blue."""

    width: int
    height: int
    channels: int

    @property
    def values(self) -> int:
        """Return the number of values in an image."""
        return self.width * self.height * self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The shape of a view, and how its values were computed.

    A view holds little-endian float32 values of shape (channels, height, width) for each sample.
    """

    width: int
    height: int
    channels: int
    mean: float
    std: float
    augmented: bool = False
    seed: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def size_bytes(self) -> int:
        """Return the size of one sample's view."""
        return 4 * self.width * self.height * self.channels

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Return how to prepare any other image for a model that was trained with this view."""
        return {
            "width": self.width,
            "height": self.height,
            "channels": self.channels,
            "resampling": "bilinear",
            "scale": 255,
            "mean": self.mean,
            "std": self.std,
        }


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file of a dataset."""

    path: str
    count: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The content of `dataset.json`."""

    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    image: ImageShape
    views: Mapping[str, View] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()

    @property
    def count(self) -> int:
        """Return the number of samples."""
        return sum(self.class_counts)

    def to_json(self) -> dict[str, Any]:
        """Return the content as a JSON object."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "count": self.count,
            "classes": list(self.classes),
            "class_counts": list(self.class_counts),
            "image": {"encoding": "png", **asdict(self.image)},
            "views": {
                name: {"encoding": "raw", "dtype": "float32", "shape": list(view.shape), **asdict(view)}
                for name, view in self.views.items()
            },
            "shards": [asdict(shard) for shard in self.shards],
        }

    @classmethod
    def read(cls, source: Source) -> Self:
        """Read an artifact's `dataset.json`. Raise ToolError when the file does not describe a dataset."""
        document = read_description(source, DESCRIPTION, FORMAT, FORMAT_VERSION)
        try:
            return cls(
                classes=tuple(document["classes"]),
                class_counts=tuple(document["class_counts"]),
                image=ImageShape(*(document["image"][key] for key in ("width", "height", "channels"))),
                views={name: _view(entry) for name, entry in document["views"].items()},
                shards=tuple(Shard(**shard) for shard in document["shards"]),
            )
        except (KeyError, TypeError) as error:
            raise ToolError(f"{DESCRIPTION} is incomplete: {error}.") from error

    def view(self, name: str) -> View:
        """Return the view of this name. Otherwise raise ToolError with the names of all views."""
        if name not in self.views:
            names = ", ".join(f"`{other}`" for other in self.views)
            hint = f"its views are {names}." if names else "the processing tool makes a view."
            raise ToolError(f"The dataset has no view `{name}`; {hint}")
        return self.views[name]

    def batches(self, source: Source, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the samples in order, at most `rows` at once. Raise ToolError when a shard has too few or too many."""
        for shard in self.shards:
            count = 0
            with pq.ParquetFile(source.path(shard.path)) as file:
                # One thread: only one batch is in memory.
                for batch in file.iter_batches(rows, columns=columns, use_threads=False):
                    count += batch.num_rows
                    yield batch
            if count != shard.count:
                raise ToolError(f"{shard.path} holds {count} samples, but {DESCRIPTION} promises {shard.count}.")


def _view(entry: Mapping[str, Any]) -> View:
    return View(**{name: entry[name] for name in View.__dataclass_fields__ if name in entry})


class DatasetWriter:
    """Writes each batch to a shard. `finish` writes `dataset.json`. A context manager.

    Columns: `id` string, `image` PNG bytes and `annotations` struct<label: int32>. A dataset with views also has the
    column `views` struct<NAME: bytes, ...>.
    """

    def __init__(self, target: Target, image: ImageShape, views: Mapping[str, View] | None = None) -> None:
        self._target = target
        self._image = image
        self._views = dict(views or {})
        self.sample_bytes = image.values + sum(view.size_bytes for view in self._views.values())
        self._shards: list[Shard] = []
        self._file: pq.ParquetWriter | None = None
        self._rows = 0
        self.schema = _schema(self._views)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add samples as one row group."""
        if self._file is None:
            # No value repeats in these columns, so a dictionary only costs memory.
            self._file = pq.ParquetWriter(
                self._target.path(self._path), self.schema, compression="zstd", use_dictionary=False
            )
        self._file.write_batch(batch)
        self._rows += batch.num_rows
        if self._rows >= min(_SHARD_SAMPLES, max(1, _SHARD_BYTES // self.sample_bytes)):
            self._close_shard()

    def finish(self, classes: Sequence[str], class_counts: Sequence[int]) -> Dataset:
        """Close the last shard and write `dataset.json`."""
        if self._file is not None:
            self._close_shard()
        dataset = Dataset(
            classes=tuple(classes),
            class_counts=tuple(class_counts),
            image=self._image,
            views=self._views,
            shards=tuple(self._shards),
        )
        write_json(self._target, DESCRIPTION, dataset.to_json())
        return dataset

    @property
    def _path(self) -> str:
        return f"samples-{len(self._shards):05}.parquet"

    def _close_shard(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        path = self._target.path(self._path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._shards.append(Shard(self._path, self._rows, path.stat().st_size, sha256))
        self._rows = 0


def _schema(views: Mapping[str, View]) -> pa.Schema:
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("annotations", pa.struct([pa.field("label", pa.int32(), nullable=False)]), nullable=False),
    ]
    if views:
        entries = [pa.field(name, pa.binary(), nullable=False) for name in views]
        fields.append(pa.field("views", pa.struct(entries), nullable=False))
    return pa.schema(fields)


def add_view(batch: pa.RecordBatch, schema: pa.Schema, name: str, values: Sequence[bytes]) -> pa.RecordBatch:
    """Return the samples with their old views and the new view, as a batch of the writer's schema."""
    fields = list(schema.field("views").type)
    added = pa.array(values, pa.binary())
    views = [added if field.name == name else batch.column("views").field(field.name) for field in fields]
    columns = [batch.column(column) for column in ("id", "image", "annotations")]
    return pa.RecordBatch.from_arrays([*columns, pa.StructArray.from_arrays(views, fields=fields)], schema=schema)
