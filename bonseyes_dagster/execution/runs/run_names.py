"""Names of runs. Each run has a unique name in a tag; the run id may be derived from it."""

import re
import uuid

from dagster import DagsterInstance, DagsterRun, RunsFilter

from bonseyes_dagster.execution.runs.dagster_internals import RunRecord
from bonseyes_dagster.tags import PIPELINE_TAG, RUN_TAG
from bonseyes_dagster.urls import NAME_LENGTH, is_name

__all__ = [
    "NAME_LENGTH",
    "name_run",
    "named_record",
    "new_run_name",
    "own_name",
    "pipeline_name",
    "run_id_of",
    "run_name",
    "settle_name",
]

_NAMESPACE = uuid.UUID("5f0d0f0b-2f1b-5d0c-9d0e-6f8f6a1f7a11")
_ID_SUFFIX = re.compile(r"-[0-9a-f]{8}$")


def run_id_of(name: str) -> str:
    """Return the id of the run `name`. A name always gives the same id, so only one caller can create the run.

    A name is unique in the project, not only in its pipeline: pipelines share containers, where the artifact of an op
    has the name `{run}_{op}`.
    """
    return str(uuid.uuid5(_NAMESPACE, name))


def pipeline_name(run: DagsterRun) -> str:
    """Return the name of a run's pipeline; for a job without `Pipeline`, the name of the job."""
    return run.tags.get(PIPELINE_TAG) or run.job_name


def run_name(run: DagsterRun) -> str:
    """Return the name in a run's tag; for a run without a name (`dagster job execute`), its default name."""
    name = run.tags.get(RUN_TAG, "")
    return name if is_name(name) else _default_name(pipeline_name(run), run.run_id)


def new_run_name(pipeline: str) -> str:
    """Return a name for a run that has no name and no id yet."""
    return _default_name(pipeline, uuid.uuid4().hex)


def name_run(instance: DagsterInstance, run: DagsterRun) -> str:
    """Store a unique name for a run before its launch, and return the name.

    A run without a name gets one. A run with the name of another run gets a new name, because re-executions and retries
    copy the tags of their parent.
    """
    return run_name(settle_name(instance, run)[0])


def settle_name(instance: DagsterInstance, run: DagsterRun) -> tuple[DagsterRun, str]:
    """Store a unique name for a run. Return the run with this name, and the taken name that it replaces (or "")."""
    own = own_name(instance, run)
    if run.tags.get(RUN_TAG) == own:
        return run, ""
    instance.add_run_tags(run.run_id, {RUN_TAG: own})
    former = run.tags.get(RUN_TAG, "")
    return run.with_tags({**run.tags, RUN_TAG: own}), former if is_name(former) else ""


def own_name(instance: DagsterInstance, run: DagsterRun) -> str:
    """Return the unique name of a run: the name in its tag or its default name, unless another run owns this name.

    Of several runs with one name, the run with the id `run_id_of(name)` owns it, or else the oldest run.
    """
    name = run_name(run)
    if run.run_id == run_id_of(name) or name.endswith(f"-{run.run_id[:8]}"):
        return name
    stored = instance.get_run_by_id(run.run_id)
    if stored is not None and run_name(stored) != name:  # the run got a new name after the caller read it
        return run_name(stored)
    owner = named_record(instance, name)
    is_own = owner is None or owner.dagster_run.run_id == run.run_id
    return name if is_own else _suffixed(_ID_SUFFIX.sub("", name), run.run_id)


def named_record(instance: DagsterInstance, name: str) -> RunRecord | None:
    """Return Dagster's record of the run with a name, of any pipeline, or None."""
    for filters in (RunsFilter(run_ids=[run_id_of(name)]), RunsFilter(tags={RUN_TAG: name})):
        found = instance.get_run_records(filters, limit=1, ascending=True)
        if found:
            return found[0]
    return None


def _default_name(pipeline: str, run_id: str) -> str:
    return _suffixed(pipeline, run_id)


def _suffixed(name: str, run_id: str) -> str:
    # Artifacts append the name of the step: leave room for it.
    return f"{name[: NAME_LENGTH // 2]}-{run_id[:8]}"
