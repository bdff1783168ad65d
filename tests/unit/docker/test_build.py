"""Images are built after the images that they are based on, and each obstacle gets a clear error."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bonseyes_dagster.client.command import State
from bonseyes_dagster.commands.build import build
from bonseyes_dagster.docker.build import build_images, build_steps, combined_build_file, git_revision, select_images
from bonseyes_dagster.docker.compose.files import Image, read_images
from bonseyes_dagster.docker.engine import check_engine
from bonseyes_dagster.errors import NotFoundError, SettingsError, ToolError, UnavailableError

PROJECT = Path(__file__).parents[3]
IMAGES = {"base": "python", "middle": "me/base:1", "left": "me/middle:1", "right": "me/middle:1", "other": "debian"}
# Answers like `docker` with an engine and Compose 2, and records its calls.
DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >>"$0.calls"
case "$*" in
  "compose version"*) echo "${COMPOSE_VERSION:-2.26.1}" ;;
  version*) [ -z "$ENGINE_DOWN" ] || { echo "Cannot connect to the Docker daemon" >&2; exit 1; } ;;
  compose*build*) cat >"$0.document"; [ -z "$BUILD_FAILS" ] || { echo "step 3 of left failed"; exit 17; } ;;
  "image ls"*) echo abc ;;
  "image inspect"*) echo '{"Id": "sha256:abc", "Size": 5, "RootFS": {"Layers": []}, "Config": {"Labels": null}}' ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with five images."""
    services = {}
    for name, base in IMAGES.items():
        (tmp_path / f"{name}.Dockerfile").write_text(f"FROM {base}\n")
        services[name] = {"image": f"me/{name}:1", "build": {"context": ".", "dockerfile": f"{name}.Dockerfile"}}
    (tmp_path / "docker-compose-build.yml").write_text(json.dumps({"services": services}))
    (tmp_path / "definitions.py").touch()
    return tmp_path


@pytest.fixture
def images(project: Path) -> dict[str, Image]:
    """Read its images."""
    return read_images(project, {})


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a fake `docker` command on the path, and return its path; the file of its calls lies beside it."""
    file = tmp_path / "bin" / "docker"
    file.parent.mkdir()
    file.write_text(DOCKER)
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")
    return file


def _calls(docker: Path, word: str) -> list[str]:
    return [line for line in Path(f"{docker}.calls").read_text().splitlines() if word in line]


def _names(steps: list[list[Image]]) -> list[list[str]]:
    return [[image.name for image in step] for step in steps]


def test_image_is_built_after_its_bases(images: dict[str, Image]) -> None:
    """Images that do not depend on each other are built in one step."""
    assert _names(build_steps(images)) == [["base", "other"], ["middle"], ["left", "right"]]


def test_bases_of_a_selected_image_are_built_too(images: dict[str, Image]) -> None:
    """Otherwise the image could miss a change in a base; without names, all images are built."""
    assert list(select_images(images, ["left"])) == ["base", "middle", "left"]
    assert list(select_images(images, ["other", "base"])) == ["base", "other"]
    assert list(select_images(images, [])) == list(IMAGES)


def test_unknown_image_names_are_refused_with_the_list(images: dict[str, Image]) -> None:
    """The error names all unknown images at once."""
    with pytest.raises(NotFoundError, match="no image 'up', 'wrong'; the images are: base, left, middle, other, right"):
        select_images(images, ["wrong", "base", "up"])


def test_circle_of_bases_is_refused(project: Path) -> None:
    """The error has the names in the circle; none of these images could ever be built."""
    (project / "base.Dockerfile").write_text("FROM me/left\n")
    with pytest.raises(SettingsError, match="in a circle: base, left, middle, right"):
        build_steps(read_images(project, {}))


def test_combined_build_file_has_absolute_paths_and_labels(project: Path, images: dict[str, Image]) -> None:
    """The file is passed on standard input, so relative paths in it would be wrong."""
    document = combined_build_file(images.values(), "abc")
    build = document["services"]["left"]["build"]
    assert build["context"] == str(project)
    assert build["dockerfile"] == "left.Dockerfile"
    labels = {"title": "left", "version": "1", "revision": "abc"}
    assert build["labels"] == {f"org.opencontainers.image.{name}": text for name, text in labels.items()}
    assert len(combined_build_file(images.values(), None)["services"]["left"]["build"]["labels"]) == 2


def test_steps_are_built_in_order(project: Path, images: dict[str, Image], docker: Path) -> None:
    """Only the first step pulls newer base images: no registry has the project's own images."""
    reported: list[str] = []
    built = build_images(project, images, options=["--no-cache"], pull=True, quiet=True, report=reported.append)
    assert [line.split("build ")[1] for line in _calls(docker, " build ")] == [
        "--no-cache --pull base other",
        "--no-cache middle",
        "--no-cache left right",
    ]
    assert [image.is_new for image in built] == [False] * 5
    assert reported[0] == "1/3  base, other"
    assert set(json.loads(Path(f"{docker}.document").read_text())["services"]) == set(IMAGES)


def test_dollar_signs_reach_the_engine_unchanged(project: Path, docker: Path) -> None:
    """Compose fills in variables of the combined file once more."""
    file = project / "docker-compose-build.yml"
    document = json.loads(file.read_text())
    document["services"]["base"]["build"]["args"] = {"X": "a$$b", "Y": None}
    file.write_text(json.dumps(document))
    images = read_images(project, {})
    build_images(project, {"base": images["base"]}, quiet=True)
    args = json.loads(Path(f"{docker}.document").read_text())["services"]["base"]["build"]["args"]
    assert args == {"X": "a$$b", "Y": None}


def test_failed_build_raises_with_the_engines_output(
    project: Path, images: dict[str, Image], docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `quiet`, this is the only place where the user sees the output."""
    monkeypatch.setenv("BUILD_FAILS", "1")
    with pytest.raises(ToolError, match="step 3 of left failed"):
        build_images(project, images, quiet=True)


def _no_command(docker: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", "/nowhere")


def _no_engine(docker: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ENGINE_DOWN", "1")


def _no_compose(docker: Path, patch: pytest.MonkeyPatch) -> None:
    docker.write_text(DOCKER.replace('echo "${COMPOSE_VERSION:-2.26.1}"', "exit 1"))


def _old_compose(docker: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("COMPOSE_VERSION", "1.29.2")


@pytest.mark.parametrize(
    ("break_docker", "message"),
    [
        (_no_command, "There is no `docker` command"),
        (_no_engine, "engine does not answer.*Cannot connect"),
        (_no_compose, "no `compose` command"),
        (_old_compose, "has version 1.29.2"),
    ],
)
def test_missing_docker_engine_or_compose_is_reported(
    docker: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_docker: Callable[[Path, pytest.MonkeyPatch], None],
    message: str,
) -> None:
    """The check comes before anything is started."""
    check_engine()
    break_docker(docker, monkeypatch)
    with pytest.raises(UnavailableError, match=message):
        check_engine()


def _invoke(folder: Path, *arguments: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(build, arguments, obj=State(), catch_exceptions=False)


def test_build_command_lists_the_images(project: Path, docker: Path) -> None:
    """It prints lines for a pipe, or JSON; progress goes to standard error."""
    result = _invoke(project, "-q", "middle")
    assert result.stdout.splitlines() == ["me/base:1\t5 B\tas before", "me/middle:1\t5 B\tas before"]
    assert "2 images in" in result.stderr
    listed = json.loads(_invoke(project, "-q", "base", "--json").stdout)
    assert listed == [
        {"name": "base", "reference": "me/base:1", "image_id": "sha256:abc", "size_bytes": 5, "is_new": False}
    ]


def test_git_revision_is_the_commit(tmp_path: Path) -> None:
    """It ends with `-dirty` when files differ from the commit, and is None without a repository."""
    assert git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert git_revision(tmp_path) == commit
    (tmp_path / "file").touch()
    subprocess.run([*git, "add", "file"], check=True)
    assert git_revision(tmp_path) == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("file", "extras"),
    [("tool", ["tool", "gateway"]), ("visualization", ["visualization"]), ("pipeline", ["pipeline"])],
)
def test_images_install_the_packages_of_the_extras_with_hashes(file: str, extras: list[str]) -> None:
    """Each package has the tested version; `make constraints` updates the list, for example after a new dependency."""
    text = (PROJECT / "requirements" / f"{file}.txt").read_text()
    entries = re.split(r"\n(?! )", text.strip())
    assert all(" --hash=sha256:" in entry for entry in entries)
    found = [Requirement(entry.split(" \\\n")[0]) for entry in entries]
    listed = {each.name: str(each.specifier) for each in found if each.marker is None or each.marker.evaluate()}
    pins = re.findall(r"^(\S+)(==\S+)$", (PROJECT / "constraints.txt").read_text(), re.M)
    tested = {canonicalize_name(name): version for name, version in pins}
    listed.pop("setuptools", None)  # `pip freeze` leaves it out
    assert listed == {name: tested[name] for name in listed}
    assert {name for extra in extras for name in _of_extra(extra)} <= listed.keys()


def _of_extra(extra: str) -> set[str]:
    """Return the names of the packages that an extra installs, also through other extras."""
    names: set[str] = set()
    for requirement in map(Requirement, importlib.metadata.requires("bonseyes-dagster") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            nested = requirement.extras if requirement.name == "bonseyes-dagster" else ()
            names |= {canonicalize_name(requirement.name)} if not nested else set().union(*map(_of_extra, nested))
    return names


def test_component_image_installs_the_packages_of_its_extra() -> None:
    """`pip install '.[training]'` and the component's images must install the same packages."""
    document = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    text = (PROJECT / "components" / "image-classification" / "Dockerfile").read_text()
    installed = {name for line in re.findall(r"pip install (.*?)(?: \\)?$", text, re.M) for name in line.split()}
    defaults = dict(re.findall(r"^ARG (\w+)=(.+)$", text, re.M))
    installed = {defaults[name.strip('"$')] if "$" in name else name for name in installed}
    extra = set(document["project"]["optional-dependencies"]["training"])
    assert {_bare(name) for name in installed} == {_bare(name) for name in extra}
    assert defaults["TORCH"] in extra
    assert (
        f"${{TORCH:-{defaults['TORCH']}}}"
        in (PROJECT / "components/image-classification/docker-compose-build.yml").read_text()
    )


def _bare(requirement: str) -> str:
    return re.split(r"[<>=]", requirement)[0]


def test_images_of_this_project_build_in_order() -> None:
    """Each image has the name of its service, and is based only on images of earlier steps."""
    images = read_images(PROJECT, {})
    done: set[str] = set()
    for step in build_steps(images):
        for image in step:
            assert image.repository == f"bonseyes/{image.name}"
            assert {base for base in image.bases() if base.startswith("bonseyes/")} <= done, image.name
        done |= {image.repository for image in step}
