"""The import of a tool starts no thread, gives no warning, uses no GPU and sends nothing: its worker forks later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
TOOLS = sorted([*ROOT.glob("containers/*/tool.yml"), *ROOT.glob("components/*/containers/*/tool.yml")])
SCRIPT = """
import importlib, json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2])
torch = sys.modules.get("torch")
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "cuda": bool(torch and torch.cuda.is_initialized()),
    "telemetry": os.environ.get("ORT_DISABLE_TELEMETRY"),
    "dagster": "dagster" in sys.modules or "flask" in sys.modules,
}))
"""


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.parent.name)
def test_import_of_a_tool_has_no_side_effects(path: Path) -> None:
    """A new process imports the tool's module. Every warning is an error, and the process still has one thread."""
    tool = yaml.safe_load(path.read_text())
    folders = [str(path.parent), *(str(path.parent / folder) for folder in tool["code"])]
    quieting = {"ORT_DISABLE_TELEMETRY", "OPENBLAS_NUM_THREADS", "JE_ARROW_MALLOC_CONF", "OMP_WAIT_POLICY", "CI"}
    environment = {name: value for name, value in os.environ.items() if name not in quieting}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(folders), tool["entry_point"].partition(":")[0]],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"threads": 1, "cuda": False, "telemetry": "1", "dagster": False}


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.parent.name)
def test_every_tool_and_parameter_has_a_description(path: Path) -> None:
    """Forms and help texts show the labels and descriptions."""
    tool = yaml.safe_load(path.read_text())
    assert tool["name"] == path.parent.name
    assert tool["description"].endswith(".")
    for parameter in tool["parameters"].values():
        assert parameter["label"]
        assert parameter["description"].endswith(".")
        assert parameter.get("required") or parameter["type"] == "json" or "default" in parameter
