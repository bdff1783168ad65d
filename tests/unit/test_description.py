"""`tool.yml`: its content, the mistakes in it that are refused, and the values of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bonseyes_dagster.description import (
    check_parameters,
    find_tools,
    load_description,
    load_tool,
    parameters_schema,
)
from bonseyes_dagster.errors import InvalidError, SettingsError
from bonseyes_dagster.model import Parameter
from bonseyes_dagster.parameters import check_value

GOOD: dict[str, Any] = {
    "name": "learn",
    "description": "Learns.",
    "entry_point": "learn:create",
    "output_type": "com.bonseyes.model",
    "parameters": {
        "training-set": {"type": "artifact", "artifact-type": "com.bonseyes.training-set", "required": True},
        "archive": {"type": "file", "required": True},
        "source": {"type": "url"},
        "epochs": {"type": "integer", "default": 30, "minimum": 1, "maximum": 100},
        "rate": {"type": "number", "default": 0.1},
        "augment": {"type": "boolean", "default": False},
        "model": {"type": "choice", "choices": ["cnn", "mlp"], "default": "cnn"},
        "view": {"type": "string", "default": "plain", "pattern": "^[a-z]+$"},
        "criteria": {"type": "json", "default": [], "schema": {"type": "array"}},
    },
}
PARAMETERS = tuple(Parameter.from_json(name, entry) for name, entry in GOOD["parameters"].items())
REQUIRED = {"training-set": "training-set/a", "archive": "http://host/a.gz"}


def write(folder: Path, **changes: Any) -> Path:
    """Write a `tool.yml` that differs from the valid one by `changes`; None removes a key."""
    document = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tool.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def test_the_description_comes_from_the_file(tmp_path: Path) -> None:
    """Everything in `GET /` comes from it."""
    described = load_description(write(tmp_path))
    assert (described.name, described.output_type) == ("learn", "com.bonseyes.model")
    assert [parameter.name for parameter in described.parameters] == list(GOOD["parameters"])
    assert described.parameters == PARAMETERS
    assert len(described.version) == 16


def test_version_follows_the_code(tmp_path: Path) -> None:
    """Any change of a file of the tool or its code folders changes the version; nothing else does."""
    code = tmp_path / "code"
    code.mkdir()
    folder = write(tmp_path / "tool", code=["../code"])
    first = load_description(folder).version
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "learn.pyc").write_bytes(b"compiled")
    assert load_description(folder).version == first
    (code / "shared.py").write_text("x = 1\n")
    second = load_description(folder).version
    (code / "shared.py").write_text("x = 2\n")
    assert len({first, second, load_description(folder).version}) == 3


def test_code_folders_are_absolute(tmp_path: Path) -> None:
    """The runner of the tool need not know the folder of `tool.yml`."""
    (tmp_path / "code").mkdir()
    assert load_tool(write(tmp_path / "tool", code=["../code"])).code == ((tmp_path / "code").resolve(),)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "a b"}, "'name' must consist of"),
        ({"description": ""}, "'description' must be"),
        ({"output_type": None}, "'output_type' must be"),
        ({"entry_point": None}, "exactly one of 'entry_point'"),
        ({"command": ["ls"]}, "exactly one of 'entry_point'"),
        ({"entry_point": "learn"}, "module:function"),
        ({"entry_point": None, "command": "ls -l"}, "'command' must be a list"),
        ({"entry_point": None, "command": ["ls", "{nothing}"]}, "{nothing}"),
        ({"code": ["missing"]}, "not a folder"),
        ({"colour": "red"}, "'colour' is unknown"),
        ({"parameters": []}, None),
        ({"parameters": ["a"]}, "'parameters' must map"),
        ({"parameters": {"a": {"type": "float"}}}, "'type' must be one of"),
        ({"parameters": {"a": {"type": "choice"}}}, "'choices' is required"),
        ({"parameters": {"a": {"type": "artifact"}}}, "'artifact-type' is required"),
        ({"parameters": {"a": {"type": "integer", "default": "x"}}}, "its 'default' is wrong"),
        ({"parameters": {"a": {"type": "integer", "default": 1, "required": True}}}, "no 'default'"),
        ({"parameters": {"a": {"type": "string", "minimum": 1}}}, "'minimum' is for"),
        ({"parameters": {"a": {"type": "string", "pattern": "("}}}, "not a regular expression"),
        ({"parameters": {"a": {"type": "string", "pattern": "(?=a)b"}}}, "has no look-around"),
        ({"parameters": {"a": {"type": "string", "pattern": r"(a)\1"}}}, "no look-around, back-references"),
        (
            {"parameters": {"a": {"type": "json", "schema": {"items": {"pattern": "(?!a)"}}}}},
            "'(?!a)' is not a regular",
        ),
        (
            {"parameters": {"a": {"type": "json", "schema": {"patternProperties": {"(?<=a)": {}}}}}},
            "'(?<=a)' is not a regular",
        ),
        (
            {
                "parameters": {
                    "a": {"type": "json", "schema": {"patternProperties": {"a": {}}, "unevaluatedProperties": False}}
                }
            },
            "use 'additionalProperties'",
        ),
        (
            {
                "parameters": {
                    "a": {
                        "type": "json",
                        "schema": {"items": {"$schema": "https://json-schema.org/draft/2020-12/schema"}},
                    }
                }
            },
            "at the top only",
        ),
        ({"parameters": {"a": {"type": "json", "schema": {"type": "nothing"}}}}, "not a JSON Schema"),
        ({"parameters": {"a": {"type": "json", "schema": True}}}, "parameter 'a': 'schema' must be a mapping"),
        (
            {"parameters": {n: {"type": "json", "schema": {"$id": "urn:x"}} for n in "ab"}},
            "parameter 'b': 'schema' has the '$id' 'urn:x', which 'a' has, too",
        ),
        (
            {"parameters": {"a": {"type": "json", "schema": {"$ref": "http://127.0.0.1:9/box.json"}}}},
            "parameter 'a': 'schema' refers to 'http://127.0.0.1:9/box.json', which is not in it",
        ),
        ({"parameters": {"a": {"type": "string", "defualt": "x"}}}, "'defualt' is unknown"),
        ({"parameters": {"a b": {"type": "string"}}}, "its name must consist of"),
        ({"parameters": {"class": {"type": "string"}}}, "that name is reserved"),
        ({"parameters": {"a-b": {"type": "string"}, "a_b": {"type": "string"}}}, "it has the same Python name as"),
    ],
)
def test_each_mistake_is_refused_with_its_message(
    tmp_path: Path, changes: dict[str, Any], sentence: str | None
) -> None:
    """An empty list of parameters is not a mistake."""
    folder = write(tmp_path, **changes)
    if sentence is None:
        assert load_description(folder).parameters == ()
        return
    with pytest.raises(SettingsError) as caught:
        load_tool(folder)
    assert sentence in caught.value.message
    assert str(tmp_path) in caught.value.message


def test_names_every_mistake_at_once(tmp_path: Path) -> None:
    """Users need not start the container once for each mistake."""
    with pytest.raises(SettingsError) as caught:
        load_tool(write(tmp_path, name="", description="", parameters={"a": {"type": "float"}}))
    assert len(caught.value.detail) == 3


@pytest.mark.parametrize("content", ["", "a: [", "- a", "\xff"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, content: str) -> None:
    """A broken file is an error of the project, not a traceback."""
    (tmp_path / "tool.yml").write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError):
        load_tool(tmp_path)


def test_finds_tools_in_both_places(tmp_path: Path) -> None:
    """A project's own tools and the tools of its components."""
    write(tmp_path / "containers" / "import")
    write(tmp_path / "components" / "vision" / "containers" / "learn")
    (tmp_path / "containers" / "no-tool").mkdir()
    assert list(find_tools(tmp_path)) == ["import", "learn"]


def test_refuses_two_tools_of_one_name(tmp_path: Path) -> None:
    """Two containers cannot have the same name."""
    write(tmp_path / "containers" / "learn")
    write(tmp_path / "components" / "vision" / "containers" / "learn")
    with pytest.raises(SettingsError, match="Two tools"):
        find_tools(tmp_path)


def test_missing_values_get_their_defaults() -> None:
    """An optional parameter without a default is None."""
    checked = check_parameters(PARAMETERS, REQUIRED)
    assert checked == {
        **REQUIRED,
        "source": None,
        "epochs": 30,
        "rate": 0.1,
        "augment": False,
        "model": "cnn",
        "view": "plain",
        "criteria": [],
    }


def test_an_upload_is_the_value_of_its_parameter() -> None:
    """Its parameter is neither missing nor among the values."""
    checked = check_parameters(PARAMETERS, {"training-set": "a/b"}, files=["archive"])
    assert "archive" not in checked


@pytest.mark.parametrize(
    ("value", "kept"), [({"epochs": 3.0}, 3), ({"rate": 1}, 1.0), ({"source": None}, None), ({"criteria": [1]}, [1])]
)
def test_numbers_and_null_are_accepted_as_in_json(value: dict[str, Any], kept: object) -> None:
    """JSON has one type of number, and null means a missing optional parameter."""
    checked = check_parameters(PARAMETERS, {**REQUIRED, **value})
    (name,) = value
    assert checked[name] == kept
    assert type(checked[name]) is type(kept)


@pytest.mark.parametrize(
    "value",
    [
        {"epochs": 0},
        {"epochs": 101},
        {"epochs": 2.5},
        {"epochs": True},
        {"epochs": "3"},
        {"epochs": None},
        {"rate": float("inf")},
        {"rate": 10**400},
        {"augment": 1},
        {"model": "tree"},
        {"view": "Plain"},
        {"view": "a\x00b"},
        {"criteria": {}},
        {"criteria": ["\ud800"]},
        {"training-set": "a"},
        {"training-set": "ftp://a/artifacts/b"},
        {"archive": "/etc/passwd"},
        {"source": "file:///etc/passwd"},
        {"unknown": 1},
    ],
)
def test_a_bad_value_is_refused(value: dict[str, Any]) -> None:
    """The error names only the bad parameter."""
    with pytest.raises(InvalidError) as caught:
        check_parameters(PARAMETERS, {**REQUIRED, **value})
    assert list(caught.value.detail) == list(value)


def test_every_bad_value_is_named() -> None:
    """In one answer."""
    with pytest.raises(InvalidError) as caught:
        check_parameters(PARAMETERS, {"epochs": "x", "model": 3}, files=["rate"])
    assert set(caught.value.detail) == {"training-set", "archive", "epochs", "model", "rate"}


def test_the_schema_agrees_with_the_check() -> None:
    """The JSON Schema is valid, and accepts the values that the check accepts."""
    schema = parameters_schema(PARAMETERS)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({**REQUIRED, "epochs": 3, "source": None})
    assert not validator.is_valid({**REQUIRED, "epochs": 0})
    assert not validator.is_valid({**REQUIRED, "unknown": 1})
    assert not validator.is_valid({})


def test_version_includes_linked_folders_and_files_of_the_command(tmp_path: Path) -> None:
    """Code in other places is code of the tool; a link that leads back is followed once."""
    (tmp_path / "elsewhere").mkdir()
    linked, program = tmp_path / "elsewhere" / "linked.py", tmp_path / "run.sh"
    program.write_text("exit 0\n")
    folder = write(tmp_path / "tool", entry_point=None, command=["sh", "../run.sh"])
    (folder / "package").symlink_to("../elsewhere")
    (folder / "package" / "back").symlink_to(folder)
    versions = {load_description(folder).version}
    for file in (linked, program, folder / "compiled.pyc"):
        for content in ("1", "2"):
            file.write_text(content)
            versions.add(load_description(folder).version)
    assert len(versions) == 7


def test_many_unknown_parameters_make_a_short_error() -> None:
    """The answer stays small, however many names a request has, and still names each wrong parameter of the tool."""
    values = {f"{'x' * 1000}{number}": 1 for number in range(10_000)} | {"epochs": 0}
    with pytest.raises(InvalidError, match="and 9980 more unknown names") as caught:
        check_parameters(PARAMETERS, values)
    assert {"epochs", "training-set", "archive"} < set(caught.value.detail)
    assert len(str(caught.value.detail)) + len(caught.value.message) < 20_000


@pytest.mark.parametrize(("depth", "problem"), [(64, None), (65, "It is nested 65 levels deep; the limit is 64.")])
def test_the_depth_of_a_value_is_limited(depth: int, problem: str | None) -> None:
    """A deeper value would fail in pickle or in a JSON Schema, after the 200 to its request."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    assert check_value(Parameter(name="criteria", type="json"), value) == problem


def test_a_value_with_very_many_faults_is_checked_quickly() -> None:
    """The check stops after the first hundred failures."""
    parameter = Parameter(name="list", type="json", schema={"items": {"type": "integer"}})
    assert check_value(parameter, ["x"] * 200_000) == "'x' is not of type 'integer'."


DIALECT = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Parameter(name="a", type="string", pattern="^(a+)+$"), "a" * 5000 + "!"),
        (Parameter(name="a", type="json", schema={"items": {"pattern": "^(a|a)*$"}}), ["a" * 5000 + "!"]),
        (Parameter(name="a", type="json", schema={"$schema": DIALECT, "pattern": "^(a+)+$"}), "a" * 5000 + "!"),
        (
            Parameter(
                name="a", type="json", schema={"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}
            ),
            {"a" * 5000 + "!": 1},
        ),
    ],
)
@pytest.mark.timeout(10)
def test_a_pattern_that_backtracks_is_checked_in_linear_time(parameter: Parameter, value: Any) -> None:
    """In Python's `re`, each of these takes longer than the age of the universe."""
    assert check_value(parameter, value)


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"pattern": "^[a-z]+$"}, "abc", "abc\n"),
        ({"patternProperties": {"^x": {"type": "integer"}}}, {"x1": 1, "y": "z"}, {"x1": "z"}),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"a": 1}, {"b": 1}),
        ({"patternProperties": {"^x": {}}, "additionalProperties": {"type": "string"}}, {"x": 1, "y": "z"}, {"y": 1}),
    ],
)
def test_patterns_follow_json_schema(schema: dict[str, Any], right: Any, wrong: Any) -> None:
    """This project implements the keywords that match patterns itself; null is for optional parameters."""
    parameter = Parameter(name="a", type="json", required=True, schema=schema)
    assert check_value(parameter, right) is None
    assert check_value(parameter, wrong)
