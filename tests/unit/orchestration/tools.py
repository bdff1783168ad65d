"""Writes tool folders for tests that read `tool.yml`; no test runs these tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

__all__ = ["IMPORT", "JUDGE", "TRAIN", "write_tools"]

IMPORT: dict[str, Any] = {
    "output_type": "com.bonseyes.dataset",
    "parameters": {
        "images": {"type": "file", "required": True, "description": "The images."},
        "size": {"type": "integer", "default": 28, "minimum": 1},
    },
}
TRAIN: dict[str, Any] = {
    "output_type": "com.bonseyes.model",
    "parameters": {
        "training-set": {"type": "artifact", "artifact-type": "com.bonseyes.dataset", "required": True},
        "former-model": {"type": "artifact", "artifact-type": "com.bonseyes.model"},
        "epochs": {"type": "integer", "default": 30, "minimum": 1, "maximum": 100},
        "model": {"type": "choice", "choices": ["cnn", "label-smoothing"], "default": "cnn"},
        "learning-rate": {"type": "number", "default": 0.1},
        "note": {"type": "string"},
        "augment": {"type": "boolean", "default": False},
    },
}
JUDGE: dict[str, Any] = {
    "output_type": "com.bonseyes.benchmark",
    "parameters": {
        "model": {"type": "artifact", "artifact-type": "com.bonseyes.model", "required": True},
        "dataset": {"type": "artifact", "artifact-type": "com.bonseyes.dataset", "required": True},
        "criteria": {"type": "json", "default": [], "schema": {"type": "array"}},
    },
}


def write_tools(project: Path, **tools: dict[str, Any]) -> Path:
    """Write tools into a project, by default the three above, and return the project."""
    for name, content in (tools or {"import": IMPORT, "training": TRAIN, "judge": JUDGE}).items():
        folder = project / "containers" / name
        folder.mkdir(parents=True)
        document = {"name": name, "description": f"The tool {name}.", "entry_point": "code:create", **content}
        (folder / "tool.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    return project
