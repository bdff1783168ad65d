"""A tool whose parameters select its behaviour, so that tests can get every answer of the contract."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import ToolError


def create(
    artifact: Any, *, text: str, repeat: int, files: list[str], steps: int, pause: float, fail: str, upload: Path | None
) -> None:
    """Write `files`, each `text` `repeat` times, after `steps` steps with a pause after each."""
    print("begin", flush=True)
    for step in range(steps):
        artifact.scalar("loss", step, 1.0 / (step + 1))
        artifact.set_progress(step + 1, steps, "step", "")
        print(f"step {step}", flush=True)
        time.sleep(pause)
    if fail:
        raise ToolError(fail)
    for path in files:
        artifact.path(path).write_bytes(text.encode() * repeat)
    if upload is not None:
        shutil.copyfile(upload, artifact.path("upload.bin"))
    print("end", flush=True)
