"""A folder that starts runs: put a pipeline's archives there, and its sensor launches a run of them."""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from dagster import DefaultSensorStatus, RunRequest, SensorDefinition, SensorEvaluationContext, SkipReason, sensor

from bonseyes_dagster.orchestration.names import RUN_TAG
from bonseyes_dagster.orchestration.pipeline import Pipeline
from bonseyes_dagster.urls import is_name

__all__ = ["inbox_sensor"]

VARIABLE = "BONSEYES_INBOX"
INTERVAL_S = 10
SETTLE_S = 5.0
_RUN_NAME_LENGTH = 64


def inbox_sensor(pipeline: Pipeline, *, folder: Path | None = None, settle_s: float = SETTLE_S) -> SensorDefinition:
    """Return a sensor that runs `pipeline` for each complete set of archives in `folder` (BONSEYES_INBOX by default).

    A set is one file for each required `file` parameter, called after it (`train-images.gz` for `train-images`), in the
    folder itself or in one of its subfolders, whose name the run then takes. A set that has changed within `settle_s`
    seconds is still being copied. The same files start one run only; new files under the old names another.
    """
    wanted = [each.name for each in pipeline.parameters if each.type == "file" and each.required]

    @sensor(
        name=f"{pipeline.job_name}_inbox",
        job=pipeline.job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING if _inbox(folder) else DefaultSensorStatus.STOPPED,
        description=f"Runs {pipeline.name} for archives placed in {VARIABLE}: {', '.join(wanted)}.",
    )
    def inbox(context: SensorEvaluationContext) -> Iterator[RunRequest | SkipReason]:
        root = _inbox(folder)
        if root is None:
            yield SkipReason(f"Set {VARIABLE} to the folder that archives are placed in.")
        elif not root.is_dir():
            yield SkipReason(f"{VARIABLE}={root} is not a folder.")
        else:
            yield from _requests(root, wanted, settle_s)

    return inbox


def _inbox(folder: Path | None) -> Path | None:
    if folder is not None:
        return folder
    return Path(os.environ[VARIABLE]).expanduser().absolute() if os.environ.get(VARIABLE) else None


def _requests(root: Path, wanted: list[str], settle_s: float) -> Iterator[RunRequest | SkipReason]:
    reasons = []
    is_idle = True
    for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        archives = _archives(folder, wanted)
        missing = [name for name in wanted if name not in archives]
        if missing:
            reasons.append(f"{folder} lacks {', '.join(missing)}")
        elif max(path.stat().st_mtime for path in archives.values()) > time.time() - settle_s:
            reasons.append(f"{folder} is still changing")
        else:
            is_idle = False
            yield _request(root, folder, archives)
    if is_idle:  # Dagster takes requests or a reason, not both
        yield SkipReason("; ".join(reasons))


def _archives(folder: Path, wanted: list[str]) -> dict[str, Path]:
    """Return the file of each parameter: its name is the parameter's up to the first dot."""
    files = {path.name.partition(".")[0]: path for path in sorted(folder.iterdir()) if path.is_file()}
    return {name: files[name] for name in wanted if name in files}


def _request(root: Path, folder: Path, archives: Mapping[str, Path]) -> RunRequest:
    key = _signature(archives)
    name = f"inbox-{key[:8]}" if folder == root else folder.name[:_RUN_NAME_LENGTH]
    return RunRequest(
        run_key=key,
        run_config={parameter: str(path) for parameter, path in archives.items()},
        tags={RUN_TAG: name} if is_name(name) else {},
    )


def _signature(archives: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(archives.items()):
        stat = path.stat()
        digest.update(f"{name} {path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
