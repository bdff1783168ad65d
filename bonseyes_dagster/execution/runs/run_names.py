"""How runs are called: each has a name of its own, which stands in a tag and which its id may be made of."""

import re
import uuid

from dagster import DagsterInstance, DagsterRun, RunsFilter

from bonseyes_dagster.execution.runs.dagster_internals import RunRecord
from bonseyes_dagster.tags import PIPELINE_TAG, RUN_TAG
from bonseyes_dagster.urls import is_name

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

NAME_LENGTH = 128
_NAMESPACE = uuid.UUID("5f0d0f0b-2f1b-5d0c-9d0e-6f8f6a1f7a11")
_ID_SUFFIX = re.compile(r"-[0-9a-f]{8}$")


def run_id_of(name: str) -> str:
    """Return the id of the run `name`: the same for everybody, so that Dagster's storage decides who creates it.

    Names are the project's, not the pipeline's: pipelines share containers, where artifacts are `{run}_{op}`.
    """
    return str(uuid.uuid5(_NAMESPACE, name))


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
