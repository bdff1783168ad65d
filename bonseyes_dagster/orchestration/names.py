"""How runs and what they make are called: the tags that both Dagster and the pipeline container read."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from dagster import DagsterInstance, DagsterRun, RunsFilter
from dagster._core.storage.dagster_run import RunRecord

from bonseyes_dagster.urls import is_name

__all__ = [
    "IDEMPOTENCY_TAG",
    "LAUNCH_TAG",
    "METRIC_PREFIX",
    "PIPELINE_TAG",
    "REUSE_TAG",
    "RUN_TAG",
    "artifact_name",
    "is_ordered_by",
    "job_name",
    "name_run",
    "named_record",
    "new_run_name",
    "order_key",
    "own_name",
    "pipeline_name",
    "run_id_of",
    "run_name",
    "settle_name",
]

# Of jobs, and so of their runs.
PIPELINE_TAG = "bonseyes/pipeline"
VERSION_TAG = "bonseyes/version"
# Of runs.
RUN_TAG = "bonseyes/run"
REUSE_TAG = "bonseyes/reuse"
IDEMPOTENCY_TAG = "bonseyes/idempotency-key"
# Of runs whose id is made of their name: another value for each run of the name, so that one is not taken for another.
LAUNCH_TAG = "bonseyes/launch"
# Of ops.
CONTAINER_TAG = "bonseyes/container"
OUTPUT_TYPE_TAG = "bonseyes/output-type"
# Of the metadata of a step's output: the last value of a benchmark's metric.
METRIC_PREFIX = "metric."

_NAMESPACE = uuid.UUID("5f0d0f0b-2f1b-5d0c-9d0e-6f8f6a1f7a11")
_ID_SUFFIX = re.compile(r"-[0-9a-f]{8}$")
NAME_LENGTH = 128


def job_name(pipeline: str) -> str:
    """Return the Dagster job of a pipeline: jobs know no hyphens and dots."""
    return re.sub(r"[^A-Za-z0-9_]", "_", pipeline)


def run_id_of(name: str) -> str:
    """Return the id of the run `name`: the same for everybody, so that Dagster's storage decides who creates it.

    Names are the project's, not the pipeline's: pipelines share containers, where artifacts are `{run}_{op}`.
    """
    return str(uuid.uuid5(_NAMESPACE, name))


def artifact_name(run: str, step: str) -> str:
    """Return the name of the artifact that a step of a run makes, in whichever container."""
    return f"{run}_{step}"


def order_key(run: DagsterRun, step: str) -> str:
    """Return the idempotency key by which a step of a run orders its artifact: RUN_ID/STEP, or RUN_ID/LAUNCH/STEP.

    A run's id is made of its name: without the launch, the key would be that of a deleted run's step.
    """
    return "/".join(filter(None, [run.run_id, run.tags.get(LAUNCH_TAG), step]))


def is_ordered_by(info: Mapping[str, Any], key: str) -> bool:
    """Tell whether an artifact was ordered with a key; a container of an earlier version does not tell: it was."""
    return "idempotency_key" not in info or info["idempotency_key"] == key


def pipeline_name(run: DagsterRun) -> str:
    """Return the pipeline that a run is of; a job made without `Pipeline` counts as one of its own name."""
    return run.tags.get(PIPELINE_TAG) or run.job_name


def run_name(run: DagsterRun) -> str:
    """Return the name of a run; one that no coordinator has seen (`dagster job execute`) is named when read."""
    name = run.tags.get(RUN_TAG, "")
    return name if is_name(name) else _default_name(pipeline_name(run), run.run_id)


def new_run_name(pipeline: str) -> str:
    """Return a good name for a run that has none and no id yet."""
    return _default_name(pipeline, uuid.uuid4().hex)


def name_run(instance: DagsterInstance, run: DagsterRun) -> str:
    """See to it that a run that is about to be launched has a name of its own, and return it.

    A nameless run gets one. One that bears another run's name gets a new one, too: re-executions and retries come
    with their parent's tags.
    """
    return run_name(settle_name(instance, run)[0])


def settle_name(instance: DagsterInstance, run: DagsterRun) -> tuple[DagsterRun, str]:
    """Give a run a name of its own in Dagster's storage; return it so, and the name that it bore and another has."""
    own = own_name(instance, run)
    if run.tags.get(RUN_TAG) == own:
        return run, ""
    instance.add_run_tags(run.run_id, {RUN_TAG: own})
    former = run.tags.get(RUN_TAG, "")
    return run.with_tags({**run.tags, RUN_TAG: own}), former if is_name(former) else ""


def own_name(instance: DagsterInstance, run: DagsterRun) -> str:
    """Return the name by which a run is known; another one than its tag says if that is another run's.

    Of several runs with one name, the run with the id that is made from the name has it, else the oldest.
    """
    name = run_name(run)
    if run.run_id == run_id_of(name) or name.endswith(f"-{run.run_id[:8]}"):
        return name
    stored = instance.get_run_by_id(run.run_id)
    if stored is not None and run_name(stored) != name:  # it was named anew since `run` was read
        return run_name(stored)
    owner = named_record(instance, name)
    is_own = owner is None or owner.dagster_run.run_id == run.run_id
    return name if is_own else _suffixed(_ID_SUFFIX.sub("", name), run.run_id)


def named_record(instance: DagsterInstance, name: str) -> RunRecord | None:
    """Return the record of the run that has a name, of all pipelines."""
    for filters in (RunsFilter(run_ids=[run_id_of(name)]), RunsFilter(tags={RUN_TAG: name})):
        found = instance.get_run_records(filters, limit=1, ascending=True)
        if found:
            return found[0]
    return None


def _default_name(pipeline: str, run_id: str) -> str:
    return _suffixed(pipeline, run_id)


def _suffixed(name: str, run_id: str) -> str:
    # Room is left for the steps' names, which artifacts add.
    return f"{name[: NAME_LENGTH // 2]}-{run_id[:8]}"
