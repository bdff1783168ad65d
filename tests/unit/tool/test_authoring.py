"""Authors of tools rely on this: the arguments of commands, local runs of their function, fingerprints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bonseyes_dagster.description import load_tool
from bonseyes_dagster.errors import InvalidError, NotFoundError, SettingsError
from bonseyes_dagster.tool.code.fingerprint import fingerprint, request_digest
from bonseyes_dagster.tool.code.loading import load_function
from bonseyes_dagster.tool.testing import make_artifact
from bonseyes_dagster.tool.worker.command import command_argv

TOOLS = Path(__file__).parents[2] / "contract" / "tools"
PROJECT = Path(__file__).parents[3]
AUTHORING = PROJECT / "docs" / "authoring.md"


def test_each_word_of_a_command_is_one_argument() -> None:
    """Values are inserted unchanged; a word is left out if its value is missing."""
    words = ["run", "--a={a}", "{b}", "{c}-{a}", "{missing}", "--x={missing}", "{flag}", "{list}"]
    values = {"a": "x y;$(z)", "b": Path("/p q"), "c": 1.5, "missing": None, "flag": True, "list": [1, "é"]}
    assert command_argv(words, values) == [
        "run",
        "--a=x y;$(z)",
        "/p q",
        "1.5-x y;$(z)",
        "true",
        '[1,"\\u00e9"]',
    ]
    assert command_argv(["{a}"], {"a": "{b}", "b": "secret"}) == ["{b}"]


def test_make_artifact_runs_the_function_of_a_tool(tmp_path: Path) -> None:
    """The test of an author calls the function with local files and folders, checked as in the container."""
    (tmp_path / "file").write_bytes(b"content")
    output = make_artifact(TOOLS / "probe", tmp_path / "one", act="metrics", text="local", some_file=tmp_path / "file")
    assert (output / "real").read_text() == "local"
    assert (output / "file.bin").read_bytes() == b"content"
    assert (tmp_path / "one/metrics/loss").read_text().count("\n") == 5
    copy = make_artifact(TOOLS / "consumer", tmp_path / "two", first=output)
    assert (copy / "copy").read_text() == "local"
    with pytest.raises(NotFoundError, match=r"it has file\.bin, real"):
        make_artifact(TOOLS / "consumer", tmp_path / "three", first=output, path="nothing")
    with pytest.raises(ValueError, match="broken"):
        make_artifact(TOOLS / "probe", tmp_path / "four", act="raise", text="broken")


def test_make_artifact_checks_parameters_before_the_call(tmp_path: Path) -> None:
    """The author sees each mistake before the function runs."""
    for parameters in ({}, {"act": "write", "stranger": 1}, {"act": "write", "seconds": -1}):
        with pytest.raises(InvalidError):
            make_artifact(TOOLS / "probe", tmp_path / "out", **parameters)
    with pytest.raises(InvalidError, match="there is no"):
        make_artifact(TOOLS / "probe", tmp_path / "out", act="write", some_file=tmp_path / "missing")
    with pytest.raises(SettingsError):
        make_artifact(TOOLS / "program", tmp_path / "out")


def test_function_without_the_parameters_of_tool_yml_is_refused(tmp_path: Path) -> None:
    """The import of the code reports that tool.yml and the code disagree."""
    (tmp_path / "tool.yml").write_text(
        "{name: t, description: t, entry_point: 'disagreeing:create', output_type: x,"
        " parameters: {size: {type: integer}}}"
    )
    (tmp_path / "disagreeing.py").write_text("def create(artifact, *, width): pass\nnumber = 1\n")
    with pytest.raises(SettingsError, match="does not take the parameters"):
        load_function(load_tool(tmp_path))


@pytest.mark.parametrize(
    ("signature", "is_refused"),
    [
        ("size=3, names=()", False),
        ("size, names", False),
        ("size=4, names=()", True),
        ("size=None, names=None", True),
        ("**parameters", False),
    ],
)
def test_function_with_another_default_than_tool_yml_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signature: str, is_refused: bool
) -> None:
    """Callers see the default of tool.yml, and the container uses it."""
    (tmp_path / "tool.yml").write_text(
        "{name: t, description: t, entry_point: 'defaults:create', output_type: x,"
        " parameters: {size: {type: integer, default: 3}, names: {type: json, default: []}}}"
    )
    star = "" if signature.startswith("**") else "*, "
    (tmp_path / "defaults.py").write_text(f"def create(artifact, {star}{signature}): pass\n")
    monkeypatch.delitem(sys.modules, "defaults", raising=False)
    with pytest.raises(SettingsError, match="leave it out of the function") if is_refused else nullcontext():
        load_function(load_tool(tmp_path))
    monkeypatch.delitem(sys.modules, "defaults")
    sys.path.remove(str(tmp_path))


def test_fingerprint_depends_on_content_not_on_its_source() -> None:
    """A file with another name or URL and the same content gives the same fingerprint."""
    tool = load_tool(TOOLS / "probe").description
    parameters = {"act": "write", "text": "x"}
    files = {"some-file": {"filename": "a", "sha256": "1"}}
    first = fingerprint(tool, parameters, files, {})
    assert first == fingerprint(tool, parameters, {"some-file": {"filename": "b", "sha256": "1", "url": "u"}}, {})
    assert first != fingerprint(tool, parameters, {"some-file": {"filename": "a", "sha256": "2"}}, {})
    assert first != fingerprint(tool, {**parameters, "text": "y"}, files, {})
    assert fingerprint(tool, {**parameters, "some-url": "http://x"}, files, {}) is None
    fetched = {**files, "some-url": {"filename": "a", "sha256": "3"}}
    assert fingerprint(tool, {**parameters, "some-url": "http://x"}, fetched, {}) is not None
    assert request_digest("a", {"x": 1}, {}) != request_digest("b", {"x": 1}, {})
    assert request_digest("a", {"x": 1, "y": 2}, {}) == request_digest("a", {"y": 2, "x": 1}, {})


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the tool of docs/authoring.md, its test and a dataset into a project folder, and change to it."""
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", AUTHORING.read_text(), re.S)
    begins = {
        "containers/resize/tool.yml": "name: resize\n",
        "containers/resize/resize.py": '"""Scales images."""',
        "test_resize.py": "from pathlib import Path\n\nfrom bonseyes_dagster.tool.testing",
    }
    for path, begin in begins.items():
        [text] = (block for block in blocks if block.startswith(begin))
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "code").mkdir()
    dataset = tmp_path / "tests/data/dataset"
    (dataset / "images").mkdir(parents=True)
    (dataset / "dataset.json").write_text(json.dumps({"images": ["images/0.png"]}))
    Image.new("L", (4, 2), 200).save(dataset / "images/0.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_tool_passes_its_documented_test(documented: Path) -> None:
    """Readers copy the example, so it must work."""
    scope: dict[str, Any] = {}
    exec((documented / "test_resize.py").read_text(), scope)
    scope["test_sizes"](documented)
    with Image.open(documented / "run/data/images/0.png") as image:
        assert image.size == (8, 8)
        assert (image.getpixel((0, 0)), image.getpixel((4, 4))) == (0, 200)
    assert (documented / "run/metrics/brightness").read_text().endswith(" 0 100.0\n")


@pytest.mark.slow
def test_the_documented_tool_passes_a_type_check(documented: Path) -> None:
    """The type checker of an author knows `Artifact` and `Input`."""
    settings = [f"--config-file={PROJECT / 'pyproject.toml'}", f"--cache-dir={PROJECT / '.mypy_cache'}"]
    files = [documented / "containers/resize/resize.py", documented / "test_resize.py"]
    environ = {**os.environ, "MYPYPATH": str(PROJECT)}
    # In a separate process, because mypy changes the recursion limit.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, *files], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
