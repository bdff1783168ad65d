"""The script that writes the demo's archives."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_digits

SCRIPT = Path(__file__).parents[3] / "demo/digits.py"


def read(path: Path) -> np.ndarray:
    """Return the array in a gzipped IDX archive. It is read without the project's code."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">u4", data[3], 4)
    array: np.ndarray = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    return array


def test_every_digit_is_written_once(tmp_path: Path) -> None:
    """The script runs as a command, as users run it. A fifth of each class is in the test archives."""
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=60, check=True)
    paths = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(paths) == ["train-images", "train-labels", "test-images", "test-labels"]
    arrays = {name: read(Path(path)) for name, path in paths.items()}
    images = np.concatenate([arrays["train-images"], arrays["test-images"]])
    expected, labels = load_digits(return_X_y=True)
    assert images.shape == (1797, 8, 8)
    assert images.max() == 255
    assert sorted(image.tobytes() for image in images) == sorted(
        np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in expected
    )
    held_out = np.bincount(arrays["test-labels"])
    assert np.array_equal(held_out, np.rint(np.bincount(labels) * 0.2))


def test_equal_seeds_write_equal_archives(digits: ModuleType, tmp_path: Path) -> None:
    """Another seed holds out other samples."""
    samples = digits.shapes((6, 5), classes=3, count=60)
    one = digits.write_archives(tmp_path / "one", samples, seed=1)
    same = digits.write_archives(tmp_path / "same", samples, seed=1)
    other = digits.write_archives(tmp_path / "other", samples, seed=2)
    assert [path.read_bytes() for path in one.values()] == [path.read_bytes() for path in same.values()]
    assert one["test-images"].read_bytes() != other["test-images"].read_bytes()


def test_the_command_line_sets_size_classes_and_count(tmp_path: Path) -> None:
    """The script can write generated shapes instead of digits."""
    arguments = [str(tmp_path), "--shapes", "12x10", "--classes", "4", "--count", "80"]
    subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, timeout=60, check=True)
    assert read(tmp_path / "train-images-idx3-ubyte.gz").shape == (64, 12, 10)
    assert np.bincount(read(tmp_path / "test-labels-idx1-ubyte.gz")).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize(
    "arguments", [["--shapes", "12"], ["--shapes", "0x3"], ["--shapes", "3x3", "--classes", "300"]]
)
def test_invalid_sizes_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    """The script prints its usage, not a traceback."""
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
