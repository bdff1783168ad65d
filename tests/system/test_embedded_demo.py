"""`python -m demo` runs the project's main job twice."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.embedded import Embedded, embedded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
STEPS = {
    *("import_train", "import_test", "process_train", "process_test", "export_train", "export_test"),
    *("split", "train", "benchmark"),
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Embedded]:
    """A copy of this project, with committed files only."""
    with embedded(tmp_path / "project") as project:
        shutil.rmtree(project.folder)
        project.folder.mkdir()
        for name in ("containers", "components", "demo"):
            shutil.copytree(ROOT / name, project.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "definitions.py", project.folder)
        yield project


def _demo(project: Embedded) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=project.folder,
        env=project.environ(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + project.logs()
    assert done.stderr == ""
    assert "Traceback" not in done.stdout
    return done.stdout


def test_the_demo_makes_a_benchmarked_model_and_the_second_reuses_it(project: Embedded) -> None:
    """The first demo turns archives into a good model and prints the results. The second computes nothing again."""
    output = _demo(project)
    accuracy = re.search(r"accuracy (\d+\.\d+)%", output)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97
    assert len(re.findall(r"^  (?:criterion|constraint) .* passed: ", output, re.MULTILINE)) == 4
    assert {step for step in STEPS if re.search(rf"^  {step} +completed", output, re.MULTILINE)} == STEPS
    model = re.search(rf"{project.url}(/containers/training/artifacts/\S+/model\.onnx)", output)
    assert model is not None
    assert len(project.get(model[1]).content) > 10_000
    assert "reused from" not in output

    output = _demo(project)
    reused = re.findall(r"^  (\w+) +completed +unchanged, reused from demo-1_\w+$", output, re.MULTILINE)
    assert set(reused) == STEPS
    assert f"accuracy {accuracy[1]}%" in output
