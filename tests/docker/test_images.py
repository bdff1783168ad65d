"""The images match the documentation: small, unprivileged, labelled, and rebuilt only where needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.description import find_tools
from bonseyes_dagster.docker.build import git_revision, inspect_image
from bonseyes_dagster.docker.compose.files import Image, read_images
from bonseyes_dagster.docker.engine import docker
from bonseyes_dagster.version import __version__

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
BONSEYES = Path(sys.executable).with_name("bonseyes")
# The project's images are in the cache. Our own tag keeps them, because the tests change the files.
TAG = f"test-{uuid.uuid4().hex[:8]}"
TOOLS = sorted(find_tools(PROJECT))
NAMES = sorted(read_images(PROJECT, {}))
# The number of code layers, which come last, in images with their own packages.
LAYERS_OF_CODE = {
    "tool": 1,
    "visualization": 1,
    "dagster": 1,
    "image-classification": 2,
    "image-classification-torch": 2,
    "image-classification-onnx": 2,
}
# Routes that a container answers without its service.
RUN = (
    "run",
    "--rm",
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the files that images are built from, so that tests can change them."""
    folder = tmp_path_factory.mktemp("images") / "project"
    folder.mkdir()
    for name in ("bonseyes_dagster", "containers", "components", "requirements"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    for pattern in ("*Dockerfile", "docker-compose*.yml", ".dockerignore", "*.md", "*.py", "*.toml", "*.txt", "*.yaml"):
        for file in PROJECT.glob(pattern):
            shutil.copy(file, folder)
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "test"]):
        subprocess.run([*git, *words], check=True)
    return folder


def _bonseyes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "BONSEYES_VERSION": TAG}
    return subprocess.run(
        [BONSEYES, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=850
    )


def _build(folder: Path, *names: str) -> dict[str, dict[str, Any]]:
    done = _bonseyes(folder, "build", "--quiet", "--json", *names)
    assert done.returncode == 0, done.stderr
    return {image["name"]: image for image in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def images(project: Path) -> Iterator[dict[str, Image]]:
    """Build every image of the copy, and remove the images at the end."""
    images = read_images(project, {"BONSEYES_VERSION": TAG})
    try:
        assert set(_build(project)) == set(images)
        yield images
    finally:
        there = [image.reference for image in images.values() if inspect_image(image.reference)]
        docker("image", "rm", "--force", *there, timeout_s=300)


def _inspect(image: Image) -> dict[str, Any]:
    found = inspect_image(image.reference)
    assert found is not None
    return found


def _python(image: str, code: str, *options: str) -> str:
    return docker(*RUN, *options, image, "python", "-c", textwrap.dedent(code), timeout_s=120).strip()


@pytest.mark.parametrize("name", NAMES)
def test_image_has_labels_and_an_unprivileged_user(project: Path, images: dict[str, Image], name: str) -> None:
    """The labels are OCI's; the user is a number, because orchestrators check numbers only."""
    config = _inspect(images[name])["Config"]
    labels = {
        key.rpartition(".")[2]: text
        for key, text in config["Labels"].items()
        if key.startswith("org.opencontainers.image.")
    }
    assert labels["title"] == name
    assert labels["version"] == TAG
    assert labels["revision"] == git_revision(project)
    assert config["User"] == "10001:10001"


def test_tool_image_is_small(images: dict[str, Image]) -> None:
    """It adds less than 60 MB to its base, and has no Dagster, no torch and no cache of pip."""
    tool = images["tool"]
    base = tool.args["PYTHON_IMAGE"]
    if inspect_image(base) is None:  # a build leaves the layers of the base, but not its name
        docker("pull", "--quiet", base, timeout_s=600)
    sizes = [
        int(docker("image", "inspect", "--format", "{{.Size}}", reference)) for reference in (tool.reference, base)
    ]
    assert sizes[0] - sizes[1] < 60e6
    there = _python(
        tool.reference,
        """
        import importlib.util, pathlib
        print([name for name in ("dagster", "torch", "numpy", "grpc") if importlib.util.find_spec(name)])
        print([str(path) for path in pathlib.Path("/").glob("*/.cache/pip")])
        """,
    )
    assert there.splitlines() == ["[]", "[]"]


@pytest.mark.parametrize("name", ["tool", "visualization", "dagster", "training"])
def test_image_has_the_versions_of_constraints_txt(images: dict[str, Image], name: str) -> None:
    """Only torch may differ, by its build for a processor or a GPU."""
    pinned = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {package.lower().replace("_", "-"): version for package, version in pinned.items()}
    listed = _python(
        images[name].reference,
        """
        import importlib.metadata, json
        print(json.dumps({d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}))
        """,
    )
    found = json.loads(listed).items()
    installed = {package.lower().replace("_", "-"): version.partition("+")[0] for package, version in found}
    known = installed.keys() & pinned.keys()
    assert {package: installed[package] for package in known} == {package: pinned[package] for package in known}
    assert len(known) > 20
    assert installed["bonseyes-dagster"] == __version__


@pytest.mark.parametrize("name", TOOLS)
def test_tool_container_gets_healthy_and_writes_only_to_its_volume(images: dict[str, Image], name: str) -> None:
    """It starts read-only, without capabilities, on port 80, as an unprivileged user."""
    container = f"{TAG}-{name}"
    docker(
        *(word for word in RUN if word != "--rm"),
        "--detach",
        "--name",
        container,
        "--volume",
        f"{container}:/volume",
        images[name].reference,
    )
    try:
        deadline = time.monotonic() + 120
        while (state := docker("inspect", "--format", "{{.State.Health.Status}}", container).strip()) != "healthy":
            assert time.monotonic() < deadline, (state, docker("logs", container))
            time.sleep(0.5)
        tried = docker(
            "exec",
            container,
            "sh",
            "-c",
            "for d in /volume /tmp / /opt/bonseyes /project /usr; do"
            " touch $d/tried 2>/dev/null && echo $d; done; id -u",
        )
        assert tried.split() == ["/volume", "/tmp", "10001"]
    finally:
        docker("rm", "--force", "--volumes", container)
        docker("volume", "rm", container)


VERSION = "from bonseyes_dagster.tool.configuration import load; print(load()[1].version)"


def test_version_of_a_tool_changes_with_its_image(images: dict[str, Image], project: Path, tmp_path: Path) -> None:
    """A rebuild keeps it; a change of a Python package, a Debian package or the code changes it."""
    tool = images["import"]
    version = _python(tool.reference, VERSION)
    assert _python(tool.reference, VERSION) == version
    wheel = tmp_path / "extra-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("extra.py", "")
        file.writestr("extra-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
        file.writestr("extra-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("extra-1.0.dist-info/RECORD", "")
    changes = {
        "nothing": "LABEL nothing=1",
        "python": f"COPY {wheel.name} /tmp/\nRUN pip install --no-index /tmp/{wheel.name}",
        "debian": "RUN sed -i '0,/^Version: /s//Version: 1:/' /var/lib/dpkg/status",
        "code": "RUN echo '# changed' >>/project/containers/import/idx.py",
    }
    versions = {}
    for what, line in changes.items():
        (tmp_path / "Dockerfile").write_text(f"FROM {tool.reference}\nUSER root\n{line}\nUSER 10001:10001\n")
        reference = f"bonseyes/{what}:{TAG}"
        try:
            docker("build", "--quiet", "--tag", reference, str(tmp_path), timeout_s=300)
            versions[what] = _python(reference, VERSION)
        finally:
            docker("image", "rm", "--force", reference)
    assert versions.pop("nothing") == version
    assert len({version, *versions.values()}) == 4, versions


def _change(file: Path) -> None:
    with file.open("a") as opened:
        opened.write("# changed\n")


def test_change_rebuilds_only_the_images_that_have_it(images: dict[str, Image], project: Path) -> None:
    """The other images stay the same, so that their containers need no restart."""
    before = _build(project)
    assert not any(image["is_new"] for image in before.values())
    _change(project / "pyproject.toml")
    _change(project / "README.md")
    subprocess.run(
        ["git", "-C", str(project), "-c", "user.name=x", "-c", "user.email=x", "commit", "-qam", "x"], check=True
    )
    assert _build(project) == before
    _change(project / "components" / "image-classification" / "containers" / "export" / "export.py")
    assert {name for name, image in _build(project).items() if image["is_new"]} == {"export", "project"}


def test_change_of_the_package_rebuilds_only_the_code_layers(images: dict[str, Image], project: Path) -> None:
    """Every image gets a new layer of code; the layers below it, with torch and Dagster, stay."""
    before = {name: _inspect(image)["RootFS"]["Layers"] for name, image in images.items()}
    _change(project / "bonseyes_dagster" / "tool" / "store.py")
    built = _build(project)
    assert {name for name, image in built.items() if not image["is_new"]} == {"tool-dependencies", "gateway"}
    for name, of_code in LAYERS_OF_CODE.items():
        layers = _inspect(images[name])["RootFS"]["Layers"]
        assert layers != before[name]
        assert layers[:-of_code] == before[name][:-of_code]


def test_failed_build_prints_the_reason(project: Path) -> None:
    """The exit status also shows a failed build, an unknown image and a missing engine."""
    file = project / "containers" / "import" / "Dockerfile"
    text = file.read_text()
    try:
        file.write_text(text + "RUN echo the reason; exit 3\n")
        failed = _bonseyes(project, "build", "--quiet", "import")
    finally:
        file.write_text(text)
    assert failed.returncode == 1
    assert "the reason" in failed.stderr
    unknown = _bonseyes(project, "build", "nothing")
    assert (unknown.returncode, "the images are: benchmarking, dagster" in unknown.stderr) == (3, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", "unix:///nowhere")
        gone = _bonseyes(project, "build")
    assert (gone.returncode, "does not answer" in gone.stderr) == (5, True)
