"""Writes the demo's four IDX archives: scikit-learn's handwritten digits, or generated shapes of any size and number.

    python demo/digits.py FOLDER
    python demo/digits.py FOLDER --shapes 12x10 --classes 4 --count 400

The test archives get a fifth of each class. The training archives get the rest.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "digits", "shapes", "write_archives", "write_idx"]

# The file parameters of the pipelines, and the usual names of these archives.
NAMES = {
    "train-images": "train-images-idx3-ubyte.gz",
    "train-labels": "train-labels-idx1-ubyte.gz",
    "test-images": "test-images-idx3-ubyte.gz",
    "test-labels": "test-labels-idx1-ubyte.gz",
}
_HELD_OUT = 0.2

Samples = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def digits() -> Samples:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels. Their values 0..16 are scaled to 0..255."""
    from sklearn.datasets import load_digits  # imported here, because `shapes` works without scikit-learn

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return pixels, labels.astype(np.uint8)


def shapes(size: tuple[int, int], classes: int, count: int, seed: int = 0) -> Samples:
    """Return generated images of `size` (rows, columns).

    Each class has a smooth pattern. Each sample is this pattern, shifted and with noise.
    """
    random = np.random.default_rng(seed)
    patterns = [_smooth(random.random(size)) for _ in range(classes)]
    labels = np.arange(count) % classes
    images = np.empty((count, *size), np.uint8)
    for index, label in enumerate(labels):
        moved = np.roll(patterns[label], random.integers(-1, 2, 2), axis=(0, 1))
        images[index] = np.clip(255 * moved + random.normal(0, 12, size), 0, 255)
    return images, labels.astype(np.uint8)


def _smooth(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the noise, blurred and then scaled to 0..1."""
    for axis in (0, 1):
        for _ in range(3):
            noise = (np.roll(noise, 1, axis) + noise + np.roll(noise, -1, axis)) / 3
    lowest, highest = noise.min(), noise.max()
    stretched: NDArray[np.float64] = (noise - lowest) / max(1e-9, highest - lowest)
    return stretched


def write_archives(folder: Path, samples: Samples, *, seed: int = 0) -> dict[str, Path]:
    """Write the four archives. The same seed gives the same bytes. Return their paths by pipeline parameter."""
    images, labels = samples
    held_out = _hold_out(labels, seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {parameter: folder / name for parameter, name in NAMES.items()}
    for part, mask in (("train", ~held_out), ("test", held_out)):
        write_idx(paths[f"{part}-images"], images[mask])
        write_idx(paths[f"{part}-labels"], labels[mask])
    return paths


def _hold_out(labels: NDArray[np.uint8], seed: int) -> NDArray[np.bool_]:
    random = np.random.default_rng(seed)
    mask = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        places = random.permutation(np.flatnonzero(labels == label))
        mask[places[: max(1, round(_HELD_OUT * len(places)))]] = True
    return mask


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write an array of unsigned bytes as an IDX archive, compressed with gzip if the name ends in .gz."""
    data = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _size(text: str) -> tuple[int, int]:
    try:
        rows, columns = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCOLUMNS, for example 12x10.") from None
    if not (rows > 0 and columns > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is an empty size; rows and columns must be positive.")
    return rows, columns


def main() -> int:
    """Write the archives and print their paths."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write the four archives")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split, and of the shapes")
    parser.add_argument("--shapes", type=_size, metavar="ROWSxCOLUMNS", help="generated shapes instead of the digits")
    parser.add_argument("--classes", type=int, default=4, help="number of classes of the shapes (default 4)")
    parser.add_argument("--count", type=int, default=400, help="number of samples of the shapes (default 400)")
    arguments = parser.parse_args()
    if arguments.shapes and not 2 <= arguments.classes <= min(256, arguments.count // 2):
        parser.error("--classes must be between 2 and 256, and --count must be at least two for each class.")
    if arguments.shapes:
        samples = shapes(arguments.shapes, arguments.classes, arguments.count, arguments.seed)
    else:
        samples = digits()
    for parameter, path in write_archives(arguments.folder, samples, seed=arguments.seed).items():
        print(f"{parameter}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
