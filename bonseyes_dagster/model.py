"""The data of the HTTP contract as frozen dataclasses, and their JSON; every service and the client use them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, Self

__all__ = [
    "NOT_SELECTED",
    "PARAMETER_TYPES",
    "TERMINAL_PHASES",
    "FileEntry",
    "Manifest",
    "Parameter",
    "Phase",
    "Point",
    "Progress",
    "Result",
    "Status",
    "Step",
    "Task",
    "ToolDescription",
    "now",
    "python_name",
    "result_of",
]

API_VERSION = "1"

Phase = Literal["queued", "running", "completed", "failed", "cancelled", "interrupted"]
Result = Literal["completed", "failed", "in-progress"]
TERMINAL_PHASES: frozenset[str] = frozenset({"completed", "failed", "cancelled", "interrupted"})
# A phase of steps only: the run does not execute the step and does not reuse it from the run that it re-executes.
NOT_SELECTED = "not-selected"

ParameterType = Literal["string", "integer", "number", "boolean", "choice", "json", "file", "url", "artifact"]
PARAMETER_TYPES: tuple[str, ...] = (
    "string",
    "integer",
    "number",
    "boolean",
    "choice",
    "json",
    "file",
    "url",
    "artifact",
)


def python_name(parameter: str) -> str:
    """Return the Python name of a parameter: the tool's argument, the op's input."""
    return parameter.replace("-", "_")


def now() -> str:
    """Return the current time in the contract's format: RFC 3339, UTC, milliseconds."""
    return at(time.time())


def at(moment_s: float) -> str:
    """Return a Unix time in the contract's format: RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def result_of(phase: str) -> Result:
    """Return the contract's `result` of a phase."""
    if phase == "completed":
        return "completed"
    return "failed" if phase in TERMINAL_PHASES else "in-progress"


def _known(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items of `data` that are fields of `cls`: a newer peer may send more."""
    names = {f.name for f in fields(cls)}
    return {key: value for key, value in data.items() if key in names}


def _check_text(what: str, *values: object) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{what} must be text")


def _check_objects(what: str, values: object) -> None:
    if not isinstance(values, list | tuple) or not all(isinstance(value, Mapping) for value in values):
        raise TypeError(f"{what} must be a list of objects")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a running artifact: `done` of `total` `unit`s; all are None until the tool reports progress."""

    done: float | None = None
    total: float | None = None
    unit: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One op of a run and the artifact that it requested.

    `phase` is a phase of artifacts or NOT_SELECTED. With NOT_SELECTED, `artifact` is "".
    """

    name: str
    container: str
    artifact: str
    phase: str
    progress: Progress = field(default_factory=Progress)

    @property
    def is_selected(self) -> bool:
        """Tell whether the step is part of the run."""
        return self.phase != NOT_SELECTED

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a step of a run's status."""
        values = _known(cls, data)
        _check_text("a step's name, container, artifact and phase", *(values[f.name] for f in fields(cls)[:4]))
        values["progress"] = Progress(**_known(Progress, values.get("progress") or {}))
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of an artifact or a run. Times are RFC 3339 in UTC, sizes are in bytes, digests are hex sha256."""

    name: str
    phase: Phase
    reason: str | None = None
    position: int | None = None
    progress: Progress = field(default_factory=Progress)
    created: str | None = None
    started: str | None = None
    finished: str | None = None
    size: int | None = None
    digest: str | None = None
    reused_from: str | None = None
    # of artifacts only
    code_changed: bool = False
    # of runs only
    steps: tuple[Step, ...] | None = None
    run_id: str | None = None
    dagster_url: str | None = None

    @property
    def result(self) -> Result:
        """Return `completed`, `failed` or `in-progress`."""
        return result_of(self.phase)

    @property
    def is_final(self) -> bool:
        """Tell whether the artifact or run has ended, so that its phase no longer changes."""
        return self.phase in TERMINAL_PHASES

    def to_json(self) -> dict[str, Any]:
        """Return the status object of the contract; only a run has the keys of runs."""
        # Not `asdict`: its deep copies are slow for lists of thousands.
        body: dict[str, Any] = {"result": self.result, **{key: getattr(self, key) for key in _STATUS_KEYS}}
        body["progress"] = _progress_json(self.progress)
        if self.steps is not None:
            steps = [{**_plain(step), "progress": _progress_json(step.progress)} for step in self.steps]
            body |= {"steps": steps, "run_id": self.run_id, "dagster_url": self.dagster_url}
        else:
            body["code_changed"] = self.code_changed
        return body

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a status object."""
        values = _known(cls, data)
        _check_text("name and phase", values["name"], values["phase"])
        values["progress"] = Progress(**_known(Progress, values.get("progress") or {}))
        if values.get("steps") is not None:
            values["steps"] = tuple(Step.from_json(step) for step in values["steps"])
        return cls(**values)


_OF_ONE_KIND = ("code_changed", "steps", "run_id", "dagster_url")
_STATUS_KEYS = tuple(f.name for f in fields(Status) if f.name not in ("progress", *_OF_ONE_KIND))


def _plain(value: Step) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _progress_json(progress: Progress) -> dict[str, Any]:
    return {
        "done": progress.done,
        "total": progress.total,
        "unit": progress.unit,
        "message": progress.message,
    }


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: its relative path with forward slashes, its size in bytes, its hex sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every file of an artifact, sorted by path."""

    files: tuple[FileEntry, ...]

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> Self:
        """Read the answer of `GET .../files`."""
        entries = [FileEntry(**_known(FileEntry, entry)) for entry in data]
        for entry in entries:
            _check_text("path and sha256", entry.path, entry.sha256)
            entry.path.encode()  # raises ValueError for a lone surrogate, which no URL can hold
            if not isinstance(entry.size, int) or entry.size < 0:
                raise TypeError(f"the size of {entry.path!r} must be a number of bytes")
        return cls(tuple(sorted(entries, key=lambda entry: entry.path)))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the answer of `GET .../files`."""
        return [{"path": entry.path, "size": entry.size, "sha256": entry.sha256} for entry in self.files]

    @property
    def canonical(self) -> bytes:
        """Return the bytes that the digest hashes: JSON sorted by path, with sorted keys, no spaces, UTF-8."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def digest(self) -> str:
        """Return the hex sha256 of the canonical form: the artifact's digest."""
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def size(self) -> int:
        """Return the total size of all files in bytes."""
        return sum(entry.size for entry in self.files)


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a scalar metric."""

    time: float
    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a tool or a pipeline, as in `tool.yml` and `GET /`.

    Only `artifact` parameters have `artifact_type` (JSON `artifact-type`), only `choice` parameters have `choices`.
    `minimum`, `maximum`, `pattern` and `schema` restrict the values.
    """

    name: str
    type: ParameterType
    label: str = ""
    description: str = ""
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    artifact_type: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    schema: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the parameter's object in `parameters`; its name is the key there."""
        body: dict[str, Any] = {
            "type": self.type,
            "label": self.label,
            "description": self.description,
            "required": self.required,
            "default": self.default,
        }
        if self.choices:
            body["choices"] = list(self.choices)
        if self.artifact_type:
            body["artifact-type"] = self.artifact_type
        for key in ("minimum", "maximum", "pattern", "schema"):
            if getattr(self, key) is not None:
                body[key] = getattr(self, key)
        return body

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> Self:
        """Read one entry of `parameters`."""
        values = _known(cls, data)
        _check_text("the type of a parameter", data["type"])
        values["name"] = name
        values["choices"] = tuple(data.get("choices", ()))
        values["artifact_type"] = data.get("artifact-type")
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDescription:
    """The answer of a container to `GET /`."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    output_type: str
    version: str
    collection: str = "/artifacts"
    schema: Mapping[str, Any] = field(default_factory=dict)
    dagster: Mapping[str, str] | None = None
    code_changed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the body of `GET /`."""
        body: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "artifacts": [self.collection],
            "parameters": {parameter.name: parameter.to_json() for parameter in self.parameters},
            "schema": dict(self.schema),
            "output_type": self.output_type,
            "version": self.version,
            "api_version": API_VERSION,
        }
        if self.collection == "/artifacts":
            body["code_changed"] = self.code_changed
        if self.dagster is not None:
            body["dagster"] = dict(self.dagster)
        return body

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the body of `GET /`."""
        texts = {key: data.get(key, "") for key in ("description", "output_type", "version")}
        _check_text("name and description", data["name"], *texts.values())
        _check_objects("schema and dagster", [data.get("schema", {}), data.get("dagster") or {}])
        collection = (data.get("artifacts") or ["/artifacts"])[0]
        _check_text("artifacts", collection)
        return cls(
            name=data["name"],
            description=texts["description"],
            parameters=tuple(Parameter.from_json(name, entry) for name, entry in data.get("parameters", {}).items()),
            output_type=texts["output_type"],
            version=texts["version"],
            collection=collection,
            schema=data.get("schema", {}),
            dagster=data.get("dagster"),
            code_changed=bool(data.get("code_changed")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task that a model must solve: the eight fields of `GET /task`.

    `constraints` and `evaluation_criterias` are lists of objects that the benchmark evaluates.
    `archives` maps the name of each archive to its description.
    """

    name: str
    description: str
    output: str
    constraints: tuple[Mapping[str, Any], ...] = ()
    archives: Mapping[str, str] = field(default_factory=dict)
    evaluation_criterias: tuple[Mapping[str, Any], ...] = ()
    cost_function: str = ""
    evaluation_dataset: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the body of `GET /task`."""
        body = asdict(self)
        body["constraints"] = [dict(entry) for entry in self.constraints]
        body["evaluation_criterias"] = [dict(entry) for entry in self.evaluation_criterias]
        return body

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the body of `GET /task`."""
        values = _known(cls, data)
        for key in ("constraints", "evaluation_criterias"):
            _check_objects(key, values.get(key, ()))
            values[key] = tuple(values.get(key, ()))
        return cls(**values)
