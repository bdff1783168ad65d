"""The description of an error in a project's file has its place and its source line."""

import importlib.util
from pathlib import Path

import pytest

from bonseyes_dagster.code_errors import describe_code_error


def load(file: Path) -> None:
    """Import a file as a module."""
    spec = importlib.util.spec_from_file_location("loaded", file)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os\ndef create(:\n    pass\n", ":2: SyntaxError: invalid syntax: def create(:"),
        ("import json\njson.loads('{')\n", ":2: json.decoder.JSONDecodeError: "),
        ("import os\nos.environ['GONE']\n", ":2: KeyError: 'GONE': os.environ['GONE']"),
        ("x = 1\n\nx.gone\n", ":3: AttributeError: 'int' object has no attribute 'gone': x.gone"),
    ],
)
def test_the_place_is_the_innermost_frame_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    """Frames of libraries and of Python are left out, also when the project's folder is the working folder."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tool.py"
    file.write_text(text)
    with pytest.raises(Exception) as caught:
        load(file)
    assert describe_code_error(caught.value, [tmp_path]).startswith(f"{file}{expected}")
