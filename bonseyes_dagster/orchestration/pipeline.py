"""A pipeline: a graph of tool ops, the task that it solves, and the parameters that its users see."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dagster import (
    ConfigMapping,
    DagsterInvalidDefinitionError,
    ExecutorDefinition,
    GraphDefinition,
)

from bonseyes_dagster import tags
from bonseyes_dagster.description import check_parameters, parameters_schema
from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.execution.threads.executor import concurrent_executor
from bonseyes_dagster.execution.threads.multiprocess import separate_executor
from bonseyes_dagster.model import Parameter, Task, ToolDescription, python_name
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.orchestration.selection import PipelineJob, Selection
from bonseyes_dagster.orchestration.steps.references import reference_io_manager
from bonseyes_dagster.orchestration.steps.schema import config_field
from bonseyes_dagster.orchestration.steps.tool_op import ToolOp
from bonseyes_dagster.orchestration.wiring import check_wiring
from bonseyes_dagster.urls import NAME_LENGTH, is_name

__all__ = ["Pipeline", "PipelineParameter", "PipelineStep"]

OUTPUT_TYPE = "com.bonseyes.run"
_UNSET: Any = object()
_EXECUTORS = {"concurrent": concurrent_executor, "multiprocess": separate_executor([__name__])}


@dataclass(frozen=True)
class PipelineParameter:
    """A parameter of a pipeline, and the parameters of its ops (`"train.epochs"`) that it sets.

    Type and limits come from the first target. So do description, label and default, unless they are given here.
    """

    name: str
    to: str | Sequence[str]
    default: Any = _UNSET
    label: str = ""
    description: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """Return the parameters that it sets, as `op.parameter`."""
        return (self.to,) if isinstance(self.to, str) else tuple(self.to)


@dataclass(frozen=True)
class PipelineStep:
    """One tool op of a pipeline; `name` is its path in the graph (`sub.train` inside a graph `sub`)."""

    name: str
    op: ToolOp

    @property
    def container(self) -> str:
        """Return the name of the container that makes the artifact."""
        return self.op.container

    @property
    def output_type(self) -> str:
        """Return the type of the artifact."""
        return self.op.tool.description.output_type

    def parameter(self, name: str) -> Parameter | None:
        """Return the tool's parameter of that name."""
        return next((each for each in self.op.tool.description.parameters if each.name == name), None)


class Pipeline:
    """A Dagster job over tool containers. Put `job` into `Definitions`; the pipeline container uses the rest.

    `graph` is a plain Dagster graph whose ops come from `tool_op`. Users see and set `parameters` in Dagster's
    launchpad, its CLI, schedules and the HTTP API. `fixed` sets other parameters of ops (`{"train.model": "cnn"}`), and
    users cannot change them. Every other parameter keeps its tool's default.
    `executor` is "concurrent" (ops run in threads of the run's process), "multiprocess" (Dagster's executor, one
    process for each op) or another executor of Dagster's. The default is the executor of `Definitions`.
    Raises DagsterInvalidDefinitionError for a pipeline that cannot work.
    """

    def __init__(
        self,
        *,
        name: str,
        graph: GraphDefinition,
        task: Task,
        description: str = "",
        parameters: Sequence[PipelineParameter] = (),
        fixed: Mapping[str, Any] | None = None,
        executor: str | ExecutorDefinition | None = None,
    ) -> None:
        self.name = name
        self.graph = graph
        self.task = task
        self.description = description or graph.description or task.description
        self.steps = tuple(_steps(graph))
        self._exposed = {parameter.name: parameter for parameter in parameters}
        self._fixed = dict(fixed or {})
        self._executor = executor
        self._by_name = {step.name: step for step in self.steps}
        self._refuse([*self._name_problems(parameters), *self._target_problems(), *self._executor_problems()])
        self.parameters = tuple(self._resolve(parameter) for parameter in parameters)
        self._refuse([*self._value_problems(), *self._gaps(), *check_wiring(graph)])
        self.job = self._make_job()

    @property
    def job_name(self) -> str:
        """Return the name of the Dagster job."""
        return names.job_name(self.name)

    @property
    def containers(self) -> tuple[str, ...]:
        """Return the containers of its ops, each once, in the order of the ops."""
        return tuple(dict.fromkeys(step.container for step in self.steps))

    @property
    def name_length(self) -> int:
        """Return how many characters the name of a run may have: the names of its artifacts add those of its steps."""
        return NAME_LENGTH - len("_") - max(len(step.name) for step in self.steps)

    def describe(self) -> ToolDescription:
        """Return the description of the pipeline; its container adds Dagster's URL."""
        return ToolDescription(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            output_type=OUTPUT_TYPE,
            version=self._version(),
            collection="/runs",
            schema=parameters_schema(self.parameters),
        )

    def run_config(self, values: Mapping[str, Any], selection: Selection | None = None) -> dict[str, Any]:
        """Return the config of the ops for values of the pipeline's parameters; None means the tool's default."""
        config: dict[str, Any] = {}
        given = list(self._fixed.items())
        for name, parameter in self._exposed.items():
            if values.get(name) is not None:
                given += [(target, values[name]) for target in parameter.targets]
        for target, value in given:
            if selection is None or target.rpartition(".")[0] in selection.ops:
                self._set(config, target, value)
        return config if selection is None else selection.run_config(config, values)

    def _set(self, config: dict[str, Any], target: str, value: Any) -> None:
        path, _, name = target.rpartition(".")
        node = config
        for part in path.split("."):
            node = node.setdefault("ops", {}).setdefault(part, {})
        parameter = self._by_name[path].parameter(name)
        if parameter is not None and parameter.type == "artifact":
            node.setdefault("inputs", {})[python_name(name)] = value
        else:
            node.setdefault("config", {})[name] = value

    def _make_job(self) -> PipelineJob:
        job = self.graph.to_job(
            name=self.job_name,
            description=self.description,
            config=self._config_mapping(self.graph),
            resource_defs={"io_manager": reference_io_manager},
            executor_def=_EXECUTORS.get(self._executor) if isinstance(self._executor, str) else self._executor,
            tags={tags.PIPELINE_TAG: self.name, tags.VERSION_TAG: self._version()},
        )
        return PipelineJob.of(job, self._config_mapping)

    def _config_mapping(self, graph: GraphDefinition) -> ConfigMapping:
        """Return the config mapping of the whole graph, or of a selected part."""
        selection = Selection.of(self.graph, graph)
        parameters = [self._within(selection, each) for each in self.parameters]
        fields = {each.target: each.field for each in selection.inputs}
        fields |= {each.name: config_field(each, self.job_name) for each in parameters}
        return ConfigMapping(
            config_fn=lambda values: self._map_config(values, parameters, selection), config_schema=fields
        )

    def _within(self, selection: Selection, parameter: Parameter) -> Parameter:
        """Return a parameter for a selection of ops: it is optional if it sets none of them."""
        owners = {target.rpartition(".")[0] for target in self._exposed[parameter.name].targets}
        return parameter if owners & selection.ops else replace(parameter, required=False)

    def _map_config(
        self, values: Mapping[str, Any], parameters: Sequence[Parameter], selection: Selection
    ) -> dict[str, Any]:
        """Return the config of the ops; raise InvalidError for wrong values, with the sentences of the HTTP API."""
        # Files are paths here: the check of `file` parameters is for URLs.
        checked = [each for each in parameters if each.type != "file"]
        check_parameters(checked, {each.name: values[each.name] for each in checked if each.name in values})
        return self.run_config(values, selection)

    def _name_problems(self, parameters: Sequence[PipelineParameter]) -> Iterator[str]:
        if not is_name(self.name):
            yield f"{self.name!r} cannot name a pipeline: letters, digits, '.', '_' and '-' only"
        if len(self._exposed) < len(parameters):
            yield "two parameters have the same name"
        if not self.steps:
            yield "its graph has no op made by tool_op"
        inputs = {f"{step.name}.{each.name}" for step in self.steps for each in step.op.tool.description.parameters}
        for name in inputs & set(self._exposed):
            yield f"the parameter {name!r} has the name by which the input of a selected op is given"

    def _executor_problems(self) -> Iterator[str]:
        if isinstance(self._executor, str) and self._executor not in _EXECUTORS:
            yield f"there is no executor {self._executor!r}; there are: {', '.join(_EXECUTORS)}"

    def _target_problems(self) -> Iterator[str]:
        seen: dict[str, str] = {}
        owners = [
            (target, f"the parameter {name!r}") for name, each in self._exposed.items() for target in each.targets
        ]
        for target, owner in [*owners, *((target, "`fixed`") for target in self._fixed)]:
            path, _, name = target.rpartition(".")
            step = self._by_name.get(path)
            if step is None:
                yield f"{owner} sets {target!r}, but there is no op {path!r}; there are: {', '.join(self._by_name)}"
            elif step.parameter(name) is None:
                there = ", ".join(each.name for each in step.op.tool.description.parameters)
                yield f"{owner} sets {target!r}, but {step.container} has no parameter {name!r}; it has: {there}"
            elif target in seen:
                yield f"{owner} and {seen[target]} both set {target!r}"
            seen[target] = owner

    def _resolve(self, exposed: PipelineParameter) -> Parameter:
        """Make the pipeline's parameter from the parameter of its first target."""
        first = self._target(exposed.targets[0])
        given = exposed.default is not _UNSET
        return replace(
            first,
            name=exposed.name,
            label=exposed.label or first.label,
            description=exposed.description or first.description,
            default=exposed.default if given else first.default,
            required=first.required and not given,
        )

    def _target(self, target: str) -> Parameter:
        path, _, name = target.rpartition(".")
        parameter = self._by_name[path].parameter(name)
        assert parameter is not None  # _target_problems has checked it
        return parameter

    def _value_problems(self) -> Iterator[str]:
        for parameter, exposed in zip(self.parameters, self._exposed.values(), strict=True):
            for target in exposed.targets[1:]:
                other = self._target(target)
                if (other.type, other.artifact_type) != (parameter.type, parameter.artifact_type):
                    yield f"the parameter {parameter.name!r} is of type {parameter.type}, {target!r} of {other.type}"
            if parameter.default is not None:
                for target in exposed.targets:
                    yield from self._problems_of(target, parameter.default)
        for target, value in self._fixed.items():
            yield from self._problems_of(target, value)

    def _problems_of(self, target: str, value: Any) -> Iterator[str]:
        parameter = self._target(target)
        try:
            check_parameters([parameter], {parameter.name: value})
        except InvalidError as error:
            yield f"{target!r}: {error.detail[parameter.name]}"

    def _gaps(self) -> Iterator[str]:
        """Yield a sentence for each required parameter that nothing sets; Dagster itself finds unconnected inputs."""
        set_here = {target for each in self._exposed.values() for target in each.targets} | set(self._fixed)
        for step in self.steps:
            for parameter in step.op.tool.description.parameters:
                target = f"{step.name}.{parameter.name}"
                if parameter.required and parameter.type != "artifact" and target not in set_here:
                    yield f"{target!r} is required: expose it as a parameter of the pipeline, or set it in `fixed`"

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise DagsterInvalidDefinitionError(f"Pipeline {self.name!r}: " + "; ".join(problems))

    def _version(self) -> str:
        content = {
            "steps": [[step.name, step.container, step.op.tool.description.version] for step in self.steps],
            "parameters": [parameter.to_json() for parameter in self.parameters],
            "fixed": self._fixed,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _steps(graph: GraphDefinition, prefix: str = "") -> Iterator[PipelineStep]:
    for node in graph.nodes_in_topological_order:
        name = f"{prefix}{node.name}"
        if isinstance(node.definition, GraphDefinition):
            yield from _steps(node.definition, f"{name}.")
        elif isinstance(node.definition, ToolOp):
            yield PipelineStep(name, node.definition)
