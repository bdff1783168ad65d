"""YAML that people write: probable mistakes are refused with file and line, all else is read as meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.formats.yaml_file import read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)
MERGES = "a0: &a0 {x: 1, y: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is already in line 1."),
        ("a:\n  b: 1\n  'b': 2\n", "line 3: the key 'b' is already in line 2."),
        ("a: 2024-01-01\n", 'line 1: 2024-01-01 is a date in YAML; write "2024-01-01", in quotes.'),
        ("a: 2024-01-01 10:00:00\n", "line 1: 2024-01-01 10:00:00 is a date in YAML"),
        ("a: 2024-13-45\n", "line 1: 2024-13-45 is a date in YAML"),
        ("a:\n- .inf\n", "line 2: .inf is not a finite number, and JSON has only finite numbers."),
        ("a: -.INF\n", "line 1: -.INF is not a finite number"),
        ("a: .nan\n", "line 1: .nan is not a finite number"),
        ("a: 1.0e+999\n", "line 1: 1.0e+999 is not a finite number"),
        ("a: " + "9" * 5000, f"line 1: '{'9' * 40}' is not a number"),
        ("on: 1\n", 'line 1: the key on is not a string in YAML; write "on", in quotes.'),
        ("a: {1: x}\n", 'line 1: the key 1 is not a string in YAML; write "1", in quotes.'),
        ("? [a]\n: 1\n", "line 1: a list or a mapping cannot be a key."),
        ("a: !!binary aGk=\n", "line 1: !!binary is not allowed here."),
        ("a: !!set {x}\n", "line 1: !!set is not allowed here."),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor for the tag"),
        ("a: &a [*a]\n", "line 1: a value contains itself through a reference."),
        (LAUGHS, "this holds more than 100,000 values after its references are expanded."),
        (MERGES, "this holds more than 100,000 values after its references are expanded."),
        ("a: [", "line 1: it is not YAML: "),
        ("a: 1\n--- \nb: 1\n", "line 2: it is not YAML: "),
        ("a: \x00\n", "cannot be read: unacceptable character"),
        ("[" * 3000, "cannot be read: it is nested too deep."),
    ],
)
def test_probable_mistakes_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """With one sentence, file and line, and quickly, however much the references multiply the content."""
    file = tmp_path / "file.yml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_yaml(file)
    assert str(file) in caught.value.message
    assert sentence in caught.value.message


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """With its line."""
    (tmp_path / "file.yml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SettingsError, match=r"file\.yml, line 2: it is not UTF-8\.$"):
        read_yaml(tmp_path / "file.yml")


def test_the_types_of_json_are_read(tmp_path: Path) -> None:
    """Also references, merged mappings with repeated keys, and `22:22`, which is a string for a port."""
    text = """
        base: &base {a: 1, b: [yes, ~, 1.5, 0x10]}
        next: &next {<<: *base, a: 2}
        last: {<<: [*next, *base], b: "2024-01-01"}
        ports: [22:22, "80", -1:30.5]
    """
    (tmp_path / "file.yml").write_text(text)
    found = read_yaml(tmp_path / "file.yml")
    assert found == {
        "base": {"a": 1, "b": [True, None, 1.5, 16]},
        "next": {"a": 2, "b": [True, None, 1.5, 16]},
        "last": {"a": 2, "b": "2024-01-01"},
        "ports": ["22:22", "80", "-1:30.5"],
    }
    json.dumps(found, allow_nan=False)
