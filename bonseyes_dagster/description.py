"""Read and check `tool.yml`, the description of a tool.

The tool's container and the ops that call it use the result.
"""

from __future__ import annotations

import hashlib
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.formats.json_schema import check_schema, identities
from bonseyes_dagster.formats.patterns import check_patterns, compile_pattern
from bonseyes_dagster.formats.yaml_file import parse_yaml
from bonseyes_dagster.model import PARAMETER_TYPES, Parameter, ToolDescription, python_name
from bonseyes_dagster.parameters import check_parameters, check_value, parameter_schema, parameters_schema
from bonseyes_dagster.sources import Sources
from bonseyes_dagster.urls import is_name
from bonseyes_dagster.version import __version__

__all__ = [
    "ToolFolder",
    "check_parameters",
    "find_tools",
    "load_description",
    "load_tool",
    "parameter_schema",
    "parameters_schema",
]

FILE_NAME = "tool.yml"
_PATTERNS = ("containers/*/tool.yml", "components/*/containers/*/tool.yml")
_KEYS = {"name", "description", "entry_point", "command", "code", "output_type", "parameters"}
_PARAMETER_KEYS = {
    "type",
    "label",
    "description",
    "required",
    "default",
    "choices",
    "artifact-type",
    "minimum",
    "maximum",
    "pattern",
    "schema",
}
_ENTRY_POINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_PARAMETER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# Placeholders that a command line may use beside the tool's parameters.
PLACEHOLDERS = frozenset({"output", "inputs", "name"})
# Files may change while this process reads them. After so many reads, the last one counts.
_MOST_READS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFolder:
    """A tool on disk: its description and how to run it.

    Exactly one of `entry_point` (`module:function`) and `command` (argv with `{placeholders}`) is set.
    `code` holds the absolute paths of further folders with modules. The tool's version is a hash of `sources`.
    """

    folder: Path
    description: ToolDescription
    entry_point: str | None = None
    command: tuple[str, ...] = ()
    code: tuple[Path, ...] = ()
    sources: Sources = field(compare=False, repr=False)


def find_tools(project_folder: Path) -> dict[str, Path]:
    """Return the folder of each tool of a project by container name; the container has the name of the folder."""
    found: dict[str, Path] = {}
    for pattern in _PATTERNS:
        for file in sorted(project_folder.glob(pattern)):
            name = file.parent.name
            if name in found:
                raise SettingsError(
                    f"Two tools have the name {name!r}: {found[name]} and {file.parent}; rename one folder."
                )
            if not is_name(name):
                raise SettingsError(f"The folder {file.parent} has a tool; its name must be a valid container name.")
            found[name] = file.parent
    return found


def load_description(folder: Path) -> ToolDescription:
    """Return the description in `tool.yml` of `folder`; raise SettingsError that lists every mistake in it."""
    return load_tool(folder).description


def load_tool(folder: Path) -> ToolFolder:
    """Read and check `tool.yml` in `folder`; raise SettingsError that lists every mistake in it."""
    folder = folder.absolute()
    for _ in range(_MOST_READS):
        text = _text(folder / FILE_NAME)
        document = _checked(folder, text)
        code = tuple((folder / entry).resolve() for entry in document.get("code") or ())
        sources = _sources([folder, *code, *_programs([folder, *code], document.get("command") or ())])
        # A different digest means that the file changed between the two reads: text and version would not match.
        if sources.digests.get((0, FILE_NAME)) == hashlib.sha256(text).hexdigest():
            break
    parameters = tuple(Parameter.from_json(name, entry) for name, entry in (document.get("parameters") or {}).items())
    description = ToolDescription(
        name=document["name"],
        description=document["description"].strip(),
        parameters=parameters,
        output_type=document["output_type"],
        version=_version(sources),
        schema=parameters_schema(parameters),
    )
    return ToolFolder(
        folder=folder,
        description=description,
        entry_point=document.get("entry_point"),
        command=tuple(document.get("command") or ()),
        code=code,
        sources=sources,
    )


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise SettingsError(f"The folder {file.parent} has no {FILE_NAME}.") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error


def _checked(folder: Path, text: bytes) -> dict[str, Any]:
    document = _parsed(folder / FILE_NAME, text)
    wrong = [*_check_document(document), *_check_code(folder, document.get("code"))]
    if not wrong:
        wrong = list(_check_placeholders(document))
    if wrong:
        raise SettingsError(f"{folder / FILE_NAME}: " + "; ".join(wrong), detail=wrong)
    return document


def _parsed(file: Path, text: bytes) -> dict[str, Any]:
    document = parse_yaml(text, file)
    if not isinstance(document, dict):
        raise SettingsError(f"{file} must hold a mapping with the keys {', '.join(sorted(_KEYS))}.")
    return document


def _programs(folders: list[Path], command: Sequence[str]) -> Iterator[Path]:
    """Yield the files outside `folders` that a command names by a path; a name without a slash is in the image."""
    inside = [folder.resolve() for folder in folders]
    for word in command:
        path = folders[0] / word
        if "/" in word and _is_file(path) and not any(path.resolve().is_relative_to(folder) for folder in inside):
            yield path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long for the file system
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _sources(folders: list[Path]) -> Sources:
    try:
        return Sources.read(folders)
    except OSError as error:
        raise SettingsError(f"A file of the tool cannot be read: {error}") from error


def _check_document(document: Mapping[str, Any]) -> Iterator[str]:
    for key in document:
        if key not in _KEYS:
            yield f"{key!r} is unknown; the keys are {', '.join(sorted(_KEYS))}"
    if not isinstance(document.get("name"), str) or not is_name(document["name"]):
        yield "'name' must consist of letters, digits, '.', '_' and '-'"
    for key in ("description", "output_type"):
        if not isinstance(document.get(key), str) or not document[key].strip():
            yield f"{key!r} must be a non-empty string"
    yield from _check_how_run(document)
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        yield "'parameters' must map names to descriptions"
        return
    yield from _check_names(parameters)
    wrong = [
        f"parameter {name!r}: {problem}"
        for name, entry in parameters.items()
        for problem in _check_parameter(str(name), entry)
    ]
    yield from wrong or _check_identities(parameters)


def _check_how_run(document: Mapping[str, Any]) -> Iterator[str]:
    entry_point, command = document.get("entry_point"), document.get("command")
    if (entry_point is None) == (command is None):
        yield "exactly one of 'entry_point' (module:function) and 'command' (a list of arguments) is required"
    if entry_point is not None and not (isinstance(entry_point, str) and _ENTRY_POINT.fullmatch(entry_point)):
        yield f"'entry_point' must be written module:function, not {entry_point!r}"
    if command is not None and not (
        isinstance(command, list) and command and all(isinstance(word, str) and word for word in command)
    ):
        yield "'command' must be a list of strings, one for each argument"


def _check_placeholders(document: Mapping[str, Any]) -> Iterator[str]:
    known = {*PLACEHOLDERS, *(document.get("parameters") or {})}
    for word in document.get("command") or ():
        for placeholder in _PLACEHOLDER.findall(word):
            if placeholder not in known:
                yield f"'command' names {{{placeholder}}}; there are {', '.join(sorted(known))}"


def _check_names(parameters: Mapping[str, Any]) -> Iterator[str]:
    twins: dict[str, str] = {}
    for name in parameters:
        if not isinstance(name, str) or not _PARAMETER_NAME.fullmatch(name):
            yield f"parameter {name!r}: its name must consist of letters, digits, '-' and '_', and begin with a letter"
            continue
        attribute = python_name(name)
        if keyword.iskeyword(attribute) or attribute in {"artifact", "name", "data"}:
            yield f"parameter {name!r}: that name is reserved"
        if attribute in twins:
            yield f"parameter {name!r}: it has the same Python name as {twins[attribute]!r}"
        twins[attribute] = name


def _check_parameter(name: str, entry: object) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield "it must be a mapping with at least 'type'"
        return
    for key in entry:
        if key not in _PARAMETER_KEYS:
            yield f"{key!r} is unknown; the keys are {', '.join(sorted(_PARAMETER_KEYS))}"
    kind = entry.get("type")
    if kind not in PARAMETER_TYPES:
        yield f"'type' must be one of {', '.join(PARAMETER_TYPES)}, not {kind!r}"
        return
    before = list(_check_facets(kind, entry))
    yield from before
    if not before:
        yield from _check_default(name, entry)


def _check_facets(kind: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for key in ("label", "description", "pattern", "artifact-type"):
        if not isinstance(entry.get(key, ""), str):
            yield f"{key!r} must be a string"
    if not isinstance(entry.get("required", False), bool):
        yield "'required' must be true or false"
    choices = entry.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        yield "'choices' must be a list of strings"
    elif (kind == "choice") != bool(choices):
        yield "'choices' is required for the type choice and not allowed for other types"
    if (kind == "artifact") != bool(entry.get("artifact-type")):
        yield "'artifact-type' is required for the type artifact and not allowed for other types"
    yield from _check_bounds(kind, entry)
    yield from _check_schemas(kind, entry)


def _check_bounds(kind: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for key in ("minimum", "maximum"):
        if key not in entry:
            continue
        if kind not in ("integer", "number"):
            yield f"{key!r} is for the types integer and number"
        elif isinstance(entry[key], bool) or not isinstance(entry[key], int | float):
            yield f"{key!r} must be a number"


def _check_schemas(kind: str, entry: Mapping[str, Any]) -> Iterator[str]:
    if "pattern" in entry:
        if kind != "string":
            yield "'pattern' is for the type string"
        try:
            compile_pattern(str(entry["pattern"]))
        except ValueError as error:
            yield f"'pattern' is not a regular expression: {error}"
    if "schema" in entry:
        if kind != "json":
            yield "'schema' is for the type json"
        problems = list(check_schema(entry["schema"]))
        yield from problems
        if not problems:
            yield from (f"'schema': {problem}" for problem in check_patterns(entry["schema"]))


def _check_identities(parameters: Mapping[str, Any]) -> Iterator[str]:
    owners: dict[str, str] = {}
    for name, entry in parameters.items():
        for identity in identities(entry.get("schema", {})):
            if identity in owners:
                yield f"parameter {name!r}: 'schema' has the '$id' {identity!r}, which {owners[identity]!r} has, too"
            owners[identity] = name


def _check_default(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    if entry.get("default") is None:
        return
    if entry.get("required"):
        yield "it is required, so it must have no 'default'"
    elif entry["type"] == "file":
        yield "a file must have no 'default'"
    else:
        problem = check_value(Parameter.from_json(name, entry), entry["default"])
        if problem:
            yield f"its 'default' is wrong: {problem}"


def _check_code(folder: Path, code: object) -> Iterator[str]:
    if code is None:
        return
    if not isinstance(code, list) or not all(isinstance(entry, str) for entry in code):
        yield "'code' must be a list of folders, relative to this one"
        return
    for entry in code:
        if not _is_folder(folder / entry):
            yield f"'code' names {entry!r}, which is not a folder"


def _version(sources: Sources) -> str:
    """Hash everything that can change a result: the tool's files, its code folders and this package's version."""
    digest = hashlib.sha256(f"bonseyes-dagster {__version__}\n".encode())
    sources.hash_into(digest)
    return digest.hexdigest()[:16]
