"""The packages of each extra in an empty environment: a client needs no Flask, a tool image no Dagster."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

CASES = {
    "client": (
        "",
        ["bonseyes_dagster.client", "bonseyes_dagster.client.command"],
        ["flask", "dagster", "torch", "yaml"],
    ),
    "tool": (
        "[tool]",
        ["bonseyes_dagster.tool.app", "bonseyes_dagster.tool.worker.worker"],
        ["dagster", "torch", "aiohttp"],
    ),
    "gateway": (
        "[gateway]",
        ["bonseyes_dagster.gateway.access_service", "bonseyes_dagster.gateway.nginx"],
        ["flask", "dagster", "torch"],
    ),
    "visualization": ("[visualization]", ["bonseyes_dagster.visualization.app"], ["dagster", "torch"]),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_extra_installs_exactly_the_packages_it_needs(case: str, tmp_path: Path) -> None:
    """In an empty environment, its modules import, and the forbidden packages are missing."""
    extra, modules, forbidden = CASES[case]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    # Build the wheel from a copy, so that the build leaves no files in the checkout.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "bonseyes_dagster"):
        subprocess.run(["cp", "-r", ROOT / name, source / name], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{source}{extra}"]
    subprocess.run(install, check=True)
    imports = "; ".join(f"import {module}" for module in modules)
    subprocess.run([python, "-c", imports], check=True, cwd=tmp_path)
    for package in forbidden:
        found = subprocess.run([python, "-c", f"import {package}"], capture_output=True, cwd=tmp_path)
        assert found.returncode != 0, f"{case} also installs {package}"
