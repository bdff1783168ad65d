"""`python -m benchmarks.images`: measures sizes and build times of the images and prints Markdown tables.

It builds a copy of the project with the tag `benchmark` and changes the copy like a developer. At the end it removes
the copy and the images. It needs Docker and some minutes. Most of this time depends on the source of pip's packages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bonseyes_dagster.docker.build import BuiltImage, build_images, build_steps, inspect_image
from bonseyes_dagster.docker.compose.files import Image, read_images
from bonseyes_dagster.docker.engine import check_engine, docker

PROJECT = Path(__file__).parents[1]
TAG = "benchmark"
MB = 1e6
COMPONENT = Path("components/image-classification")


def main() -> None:
    """Measure the images and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.parse_args()
    check_engine()
    os.environ["BONSEYES_VERSION"] = TAG
    with _copy() as project:
        images = read_images(project)
        try:
            _print(images, _build_each(project, images), _rebuilds(project, images))
        finally:
            there = [image.reference for image in images.values() if inspect_image(image.reference)]
            if there:
                docker("image", "rm", *there, timeout_s=600)


@contextmanager
def _copy() -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        check=True,
        capture_output=True,
        text=True,
    )
    with tempfile.TemporaryDirectory(prefix="bonseyes-images-") as folder:
        project = Path(folder) / "project"
        for name in filter(None, listed.stdout.split("\0")):
            if (PROJECT / name).is_file():
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, project / name)
        yield project


def _build(project: Path, images: Mapping[str, Image], *options: str) -> tuple[float, list[BuiltImage]]:
    started = time.monotonic()
    built = build_images(project, images, options=options, quiet=True)
    return time.monotonic() - started, built


def _build_each(project: Path, images: Mapping[str, Image]) -> dict[str, float]:
    """Build each image without a cache. Its base image exists already. Return the seconds of each."""
    seconds = {}
    for step in build_steps(images):
        for image in step:
            print(f"building {image.name} …", file=sys.stderr, flush=True)
            seconds[image.name], _ = _build(project, {image.name: image}, "--no-cache")
    return seconds


def _rebuilds(project: Path, images: Mapping[str, Image]) -> dict[str, tuple[float, int]]:
    """Build everything after each change. Return the seconds and the number of changed images."""
    changes: dict[str, Callable[[], None]] = {
        "nothing, built once before": lambda: None,
        "nothing": lambda: None,
        "the README, and a comment in `pyproject.toml`": lambda: _append(project, "README.md", "pyproject.toml"),
        "one tool's code": lambda: _append(project, COMPONENT / "containers/training/training.py"),
        "the component's code": lambda: _append(project, COMPONENT / "code/image_classification/tensors.py"),
        "the pipelines, `definitions.py`": lambda: _append(project, "definitions.py"),
        "the package's code, `bonseyes_dagster/`": lambda: _append(project, "bonseyes_dagster/tool/store.py"),
    }
    found = {}
    for what, change in changes.items():
        change()
        print(f"building after: {what} …", file=sys.stderr, flush=True)
        seconds, built = _build(project, images)
        found[what] = seconds, sum(image.is_new for image in built)
    del found["nothing, built once before"]  # this build only fills the cache
    return found


def _append(project: Path, *names: str | Path) -> None:
    for name in names:
        with (project / name).open("a") as file:
            file.write("# changed\n")


def _print(
    images: Mapping[str, Image], fresh_s: Mapping[str, float], rebuilds: Mapping[str, tuple[float, int]]
) -> None:
    load, processors = os.getloadavg()[0], os.cpu_count()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {processors} processors, load {load:.1f} at the end:\n")
    print("| image | size, MB | base | adds, MB | build without cache, s |\n|---|---:|---|---:|---:|")
    for name, image in images.items():
        size, base = _size(image.reference), _base(image, images)
        adds = (size - _size(base)) / MB
        print(f"| `{image.repository}` | {size / MB:,.0f} | `{base}` | {adds:,.1f} | {fresh_s[name]:.1f} |")
    print("\n| change | build of all images, s | changed images |\n|---|---:|---:|")
    for what, (seconds, count) in rebuilds.items():
        print(f"| {what} | {seconds:.1f} | {count} |")


def _base(image: Image, images: Mapping[str, Image]) -> str:
    """Return the reference of the base image: the largest image whose layers this image begins with."""
    ours = {other.repository: other.reference for other in images.values()}
    candidates = [ours.get(base, base) for base in image.references()]
    layers = _layers(image.reference)
    fitting = [base for base in candidates if layers[: len(_layers(base))] == _layers(base)]
    return max(fitting, key=lambda base: len(_layers(base)))


def _layers(reference: str) -> list[str]:
    if (found := inspect_image(reference)) is None:  # a builder may have the layers of the base without its name
        docker("pull", "--quiet", reference, timeout_s=600)
        found = inspect_image(reference)
    return list(found["RootFS"]["Layers"]) if found else []


def _size(reference: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", reference))


if __name__ == "__main__":
    main()
