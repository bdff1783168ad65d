"""Decodes, encodes, scales, augments and normalises one image at a time.

The import tool encodes images. The processing tool makes views of them.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image_classification.dataset import View

__all__ = ["decode_png", "encode_png", "make_view"]

# Fast. The files are only a few percent larger than the smallest, for photographs and for drawn characters.
_COMPRESS_LEVEL = 3
_MOST_DEGREES = 12.0
_MOST_SHIFT = 0.08


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return (rows, columns) grey or (rows, columns, 3) colour pixels as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def decode_png(data: bytes, channels: int) -> Image.Image:
    """Return the image with 1 (grey) or 3 (colour) channels. Raise ValueError or OSError when it cannot be decoded."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("L" if channels == 1 else "RGB")


def make_view(view: View, image: Image.Image, index: int) -> bytes:
    """Return the view of the sample with this index: scaled, augmented if the view wants it, normalised."""
    image = _scale(image, view.width, view.height)
    if view.augmented:
        # A seed per sample: the result does not depend on the batches and shards.
        image = _move(image, np.random.default_rng([view.seed or 0, index]))
    return _normalise(image, view.mean, view.std).tobytes()


def _scale(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the image, enlarged or reduced to the size with antialiasing."""
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _move(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return the image turned by up to 12 degrees and shifted by up to 8 % of its sides."""
    degrees = random.uniform(-_MOST_DEGREES, _MOST_DEGREES)
    shift = random.uniform(-_MOST_SHIFT, _MOST_SHIFT, 2) * image.size
    return image.rotate(
        degrees,
        resample=Image.Resampling.BILINEAR,
        translate=(round(shift[0]), round(shift[1])),
        fillcolor=_background(image),
    )


def _background(image: Image.Image) -> int | tuple[int, ...]:
    """Return the median colour of the border. It is the best guess for the pixels beyond the edge."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    middle = np.median(border, axis=0).astype(int)
    return int(middle) if middle.ndim == 0 else tuple(int(value) for value in middle)


def _normalise(image: Image.Image, mean: float, std: float) -> NDArray[np.float32]:
    """Return (channels, rows, columns) float32: (value / 255 - mean) / std."""
    pixels = np.asarray(image, dtype=np.float32)
    planes = pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray((planes / np.float32(255) - np.float32(mean)) / np.float32(std))
