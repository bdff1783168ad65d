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
    """Return the id of the run `name`: always the same, so that Dagster's storage lets only one caller create it.

    A name is unique in the project, not only in its pipeline: pipelines share containers, where artifacts are
    `{run}_{op}`.
    """
    return str(uuid.uuid5(_NAMESPACE, name))


def pipeline_name(run: DagsterRun) -> str:
    """Return the pipeline of a run; for a job without `Pipeline`, the name of the job."""
    return run.tags.get(PIPELINE_TAG) or run.job_name


def run_name(run: DagsterRun) -> str:
    """Return the name of a run; a run without a name (`dagster job execute`) gets its default name."""
    name = run.tags.get(RUN_TAG, "")
    return name if is_name(name) else _default_name(pipeline_name(run), run.run_id)


def new_run_name(pipeline: str) -> str:
    """Return a name for a run that has no name and no id yet."""
    return _default_name(pipeline, uuid.uuid4().hex)


def name_run(instance: DagsterInstance, run: DagsterRun) -> str:
    """Give a run a unique name before its launch, and return the name.

    A run without a name gets one. A run with the name of another run gets a new one: re-executions and retries have
    the tags of their parent.
    """
    return run_name(settle_name(instance, run)[0])


def settle_name(instance: DagsterInstance, run: DagsterRun) -> tuple[DagsterRun, str]:
    """Store a unique name for a run; return the run with that name, and the taken name it had before (or "")."""
    own = own_name(instance, run)
    if run.tags.get(RUN_TAG) == own:
        return run, ""
    instance.add_run_tags(run.run_id, {RUN_TAG: own})
    former = run.tags.get(RUN_TAG, "")
    return run.with_tags({**run.tags, RUN_TAG: own}), former if is_name(former) else ""


def own_name(instance: DagsterInstance, run: DagsterRun) -> str:
    """Return the unique name of a run; it differs from the run's tag if the name in the tag belongs to another run.

    Of several runs with one name, the run whose id is derived from the name keeps it, else the oldest run.
    """
    name = run_name(run)
    if run.run_id == run_id_of(name) or name.endswith(f"-{run.run_id[:8]}"):
        return name
    stored = instance.get_run_by_id(run.run_id)
    if stored is not None and run_name(stored) != name:  # it got a new name since `run` was read
        return run_name(stored)
    owner = named_record(instance, name)
    is_own = owner is None or owner.dagster_run.run_id == run.run_id
    return name if is_own else _suffixed(_ID_SUFFIX.sub("", name), run.run_id)


def named_record(instance: DagsterInstance, name: str) -> RunRecord | None:
    """Return Dagster's record of the run with a name, in all pipelines; None if there is none."""
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
