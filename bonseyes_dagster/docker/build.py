"""Build images from the build files: select them, order them, and run `docker compose build`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bonseyes_dagster.docker.compose.files import Image
from bonseyes_dagster.docker.engine import compose_argv, docker, docker_json
from bonseyes_dagster.errors import NotFoundError, SettingsError, ToolError, UnavailableError
from bonseyes_dagster.version import __version__

__all__ = [
    "BuiltImage",
    "build_images",
    "build_steps",
    "combined_build_file",
    "git_revision",
    "inspect_image",
    "select_images",
]

_LABEL = "org.opencontainers.image"
_TAIL_LINES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """A built image; `is_new` when its content differs from that of the image before."""

    name: str
    reference: str
    image_id: str
    size_bytes: int
    is_new: bool


def select_images(images: Mapping[str, Image], names: Iterable[str]) -> dict[str, Image]:
    """Return the images with these names and their base images; without names, return all images."""
    wanted = list(names)
    unknown = sorted(set(wanted) - set(images))
    if unknown:
        raise NotFoundError(
            f"There is no image {', '.join(map(repr, unknown))}; the images are: {', '.join(sorted(images))}."
        )
    found: dict[str, Image] = {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = images[name]
            wanted += (base.name for base in _own_bases(images[name], images))
    return {name: image for name, image in images.items() if name in found} or dict(images)


def build_steps(images: Mapping[str, Image]) -> list[list[Image]]:
    """Return the images in steps: the bases of an image are in earlier steps, or not built by this project."""
    needs = {name: {base.name for base in _own_bases(image, images)} for name, image in images.items()}
    steps: list[list[Image]] = []
    while needs:
        ready = [name for name, bases in needs.items() if not bases & needs.keys()]
        if not ready:
            raise SettingsError(f"These images are based on each other in a circle: {', '.join(sorted(needs))}.")
        steps.append([images[name] for name in ready])
        for name in ready:
            del needs[name]
    return steps


def combined_build_file(images: Iterable[Image], commit: str | None) -> dict[str, Any]:
    """Return one compose file that builds all images; its paths are absolute, because each file has its own folder."""
    services = {}
    revisions = {f"{_LABEL}.revision": commit} if commit else {}
    for image in images:
        build = image.raw["build"]
        build = dict(build) if isinstance(build, Mapping) else {}
        version = __version__ if image.tag == "latest" else image.tag
        labels = {f"{_LABEL}.title": image.name, f"{_LABEL}.version": version, **revisions}
        build |= {"context": str(image.context), "labels": labels}
        services[image.name] = {"image": image.reference, "build": build}
    return {"name": "bonseyes-build", "services": services}


def git_revision(project: Path) -> str | None:
    """Return the project's commit, with `-dirty` when files differ from it; None without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def build_images(
    project: Path,
    images: Mapping[str, Image],
    *,
    options: Sequence[str] = (),
    pull: bool = False,
    quiet: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> list[BuiltImage]:
    """Build `images` step by step and return them; `report` gets a line before and after each step.

    The engine's output goes to standard error. With `quiet`, only ToolError has it, when an image fails. `pull`
    looks for newer base images, but never for an image that the project builds.
    """
    document = json.dumps(_escaped(combined_build_file(images.values(), git_revision(project))))
    before = {name: inspect_image(image.reference) for name, image in images.items()}
    steps = build_steps(images)
    for number, step in enumerate(steps, 1):
        names = [image.name for image in step]
        report(f"{number}/{len(steps)}  {', '.join(names)}")
        started = time.monotonic()
        pulled = ["--pull"] if pull and number == 1 else []
        _run(compose_argv("build", *options, *pulled, *names, files=["-"]), document, project, quiet)
        report(f"{number}/{len(steps)}  done in {time.monotonic() - started:.1f} s")
    return [_built(image, before[name]) for name, image in images.items()]


def _own_bases(image: Image, images: Mapping[str, Image]) -> Iterator[Image]:
    bases = image.bases()
    yield from (other for other in images.values() if other.repository in bases)


def _escaped(value: Any) -> Any:
    """Double each dollar sign: the variables are filled in already, and Compose must not look for more."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else value


def _run(argv: list[str], document: str, project: Path, quiet: bool) -> None:
    output = subprocess.PIPE if quiet else sys.stderr
    done = subprocess.run(
        argv,
        input=document,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=project,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout or "").splitlines()[-_TAIL_LINES:])
        raise ToolError(
            "An image could not be built; the output of the engine is " + (f"this:\n{tail}" if tail else "above.")
        )


def inspect_image(reference: str) -> dict[str, Any] | None:
    """Return the engine's description of an image; None when it has no image of that name."""
    if not docker("image", "ls", "--quiet", reference).strip():
        return None
    found: dict[str, Any] = docker_json("image", "inspect", reference)[0]
    return found


def _built(image: Image, before: dict[str, Any] | None) -> BuiltImage:
    now = inspect_image(image.reference)
    if now is None:
        raise ToolError(f"The engine built {image.reference} but does not have it; is its builder on another machine?")
    if before is not None and _content(before) == _content(now):
        # The content is the same, only the commit differs: a new image would restart all its containers.
        with contextlib.suppress(UnavailableError):  # the engine may have removed the earlier image
            docker("image", "tag", before["Id"], image.reference)
            now = before
    return BuiltImage(
        name=image.name, reference=image.reference, image_id=now["Id"], size_bytes=now["Size"], is_new=now is not before
    )


def _content(image: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the content of an image: all but its id and date, and the labels for commit and build tool."""
    config = image["Config"]
    labels = {
        name: text
        for name, text in (config["Labels"] or {}).items()
        if name != f"{_LABEL}.revision" and not name.startswith("com.docker.compose.")
    }
    return image["RootFS"]["Layers"], {**config, "Labels": labels}
