"""Names of a pipeline's job and of the artifacts of its steps, and the idempotency keys of its steps."""

import re
from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun

from bonseyes_dagster.tags import LAUNCH_TAG

__all__ = ["METRIC_PREFIX", "artifact_name", "has_idempotency_key", "idempotency_key", "job_name"]

# A key of a step's metadata with this prefix has the last value of a benchmark's metric.
METRIC_PREFIX = "metric."


def job_name(pipeline: str) -> str:
    """Return the name of a pipeline's Dagster job; such a name has no hyphens and dots."""
    return re.sub(r"[^A-Za-z0-9_]", "_", pipeline)


def artifact_name(run: str, step: str) -> str:
    """Return the name of the artifact that a step of a run makes."""
    return f"{run}_{step}"


def idempotency_key(run: DagsterRun, step: str) -> str:
    """Return the idempotency key with which a step creates its artifact: RUN_ID/STEP or RUN_ID/LAUNCH/STEP.

    A run's id is made from its name, so a new run can have the id of a deleted run. LAUNCH makes their keys differ.
    """
    return "/".join(filter(None, [run.run_id, run.tags.get(LAUNCH_TAG), step]))


def has_idempotency_key(info: Mapping[str, Any], key: str) -> bool:
    """Tell whether an artifact was created with a key.

    True if the container does not report keys: containers of earlier versions do not.
    """
    return "idempotency_key" not in info or info["idempotency_key"] == key
