"""`-p` and `-f` become parameters of the described types, or an error for each wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.client.command._values import read_parameters
from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.model import Parameter

DESCRIBED = (
    Parameter(name="images", type="file", required=True),
    Parameter(name="epochs", type="integer", default=30, minimum=1, maximum=100),
    Parameter(name="learning-rate", type="number"),
    Parameter(name="augment", type="boolean"),
    Parameter(name="model", type="choice", choices=("cnn", "mlp")),
    Parameter(name="criteria", type="json"),
    Parameter(name="view", type="string", pattern="^[a-z]+$"),
    Parameter(name="dataset", type="artifact"),
)
IMAGES = "images=http://example.org/images.gz"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("epochs=3", 3),
        ("learning-rate=1", 1),
        ("learning_rate=1e-3", 0.001),
        ("augment=yes", True),
        ("augment=False", False),
        ("model=mlp", "mlp"),
        ('criteria=[{"name": "x"}]', [{"name": "x"}]),
        ("criteria=null", None),
        ("view=a", "a"),
        ("dataset=import/a=b", "import/a=b"),
    ],
)
def test_values_are_read_by_type(word: str, value: Any) -> None:
    """Only the first `=` of a word separates the name from the value."""
    parameters, files = read_parameters(DESCRIBED, [IMAGES, word], [])
    del parameters["images"]
    assert list(parameters.values()) == [value]
    assert files == {}


def test_json_value_is_read_from_a_file(tmp_path: Path) -> None:
    """With `@FILE`, nobody has to quote JSON for the shell."""
    file = tmp_path / "criteria.json"
    file.write_text("[1]")
    assert read_parameters(DESCRIBED, [IMAGES, f"criteria=@{file}"], [])[0]["criteria"] == [1]


def test_file_parameter_takes_a_path_or_a_url(tmp_path: Path) -> None:
    """A URL is given with -p, a file that exists with -f."""
    file = tmp_path / "images.gz"
    file.write_bytes(b"x")
    assert read_parameters(DESCRIBED, [], [f"images={file}"]) == ({}, {"images": file})
    assert read_parameters(DESCRIBED, [IMAGES], [])[0] == {"images": "http://example.org/images.gz"}


@pytest.mark.parametrize(
    ("values", "files", "key", "sentence"),
    [
        (["epochs=many"], [], "epochs", "must be an integer"),
        (["epochs=1.5"], [], "epochs", "must be an integer"),
        (["epochs=0"], [], "epochs", "at least 1"),
        (["epochs=101"], [], "epochs", "at most 100"),
        (["learning-rate=x"], [], "learning-rate", "must be a number"),
        (["learning-rate=inf"], [], "learning-rate", "finite"),
        (["learning-rate=nan"], [], "learning-rate", "finite"),
        (["epochs=nan"], [], "epochs", "must be an integer, not 'nan'"),
        (["epochs=" + "9" * 400], [], "epochs", "at most 100, not 9999"),
        (["criteria=NaN"], [], "criteria", "must be JSON (or @FILE with JSON in it): NaN is not a JSON number"),
        (["criteria=[-Infinity]"], [], "criteria", "-Infinity is not a JSON number"),
        (["criteria=1e999"], [], "criteria", "the number 1e999 is too large"),
        (["criteria=" + "[" * 100_000], [], "criteria", "must be JSON"),
        (["augment=maybe"], [], "augment", "true or false"),
        (["model=rnn"], [], "model", "one of cnn, mlp"),
        (["criteria={"], [], "criteria", "must be JSON"),
        (["criteria=@/nowhere"], [], "criteria", "/nowhere cannot be read"),
        (["epoch=3"], [], "epoch", "did you mean 'epochs'?"),
        (["zzz=3"], [], "zzz", "the parameters are: images, epochs"),
        (["epochs"], [], "epochs", "Write -p KEY=VALUE."),
        (["epochs=1", "epochs=2"], [], "epochs", "given twice"),
        (["images=images.gz"], [], "images", "-f images=PATH"),
        ([], [], "images", "It is required: -f images=FILE."),
        ([], ["images=/nowhere"], "images", "There is no file /nowhere."),
        ([], ["images=/"], "images", "is not a file"),
        ([], ["epochs=/etc/hostname"], "epochs", "-p epochs=VALUE"),
        ([IMAGES], ["images=/etc/hostname"], "images", "with -p and with -f"),
    ],
)
def test_wrong_parameter_gets_a_sentence(values: list[str], files: list[str], key: str, sentence: str) -> None:
    """`detail` names the parameter, and says what would be right."""
    with pytest.raises(InvalidError) as raised:
        read_parameters(DESCRIBED, values, files)
    assert sentence in raised.value.detail[key]


def test_all_wrong_parameters_are_named_at_once() -> None:
    """A user wants to correct all mistakes at once."""
    with pytest.raises(InvalidError) as raised:
        read_parameters(DESCRIBED, ["epochs=x", "model=x"], [])
    assert raised.value.detail.keys() == {"epochs", "model", "images"}
