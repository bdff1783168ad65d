"""`bonseyes check` imports each tool's code in a child process."""

from pathlib import Path

import pytest

from bonseyes_dagster.docker.check.imports import check_imports
from bonseyes_dagster.docker.check.pipelines import ask_pipelines
from bonseyes_dagster.docker.check.subject import read_subject


def write_tool(project: Path, name: str, code: str) -> None:
    """Write the folder of a tool whose module contains `code`."""
    folder = project / "containers" / name
    folder.mkdir(parents=True)
    (folder / "tool.yml").write_text(
        f"{{name: {name}, description: d, entry_point: '{name}_code:create', output_type: x}}"
    )
    (folder / f"{name}_code.py").write_text(code)


def test_code_that_cannot_be_imported_is_found(tmp_path: Path) -> None:
    """A missing package is only a note, because the tool's image may have it. A syntax error is always a finding."""
    write_tool(tmp_path, "good", "def create(artifact): ...\n")
    write_tool(tmp_path, "typo", "def create(artifact:\n    pass\n")
    write_tool(tmp_path, "leaves", "import os\nos._exit(3)\n")
    write_tool(tmp_path, "image", "import package_of_an_image\n\ndef create(artifact): ...\n")
    write_tool(tmp_path, "both", "import broken_part\n")
    (tmp_path / "containers" / "both" / "broken_part.py").write_text("import package_of_an_image\n")
    (tmp_path / "containers" / "both" / "other.py").write_text("x = (\n")
    subject, _ = read_subject(tmp_path)
    findings, skipped = check_imports(subject)
    assert {str(each.file): each.problem for each in findings} == {
        "containers/both": "The code of both cannot be loaded: "
        "containers/both/other.py:1: SyntaxError: '(' was never closed: x = (.",
        "containers/leaves": "The code of leaves cannot be loaded: its import ended the process with status 3.",
        "containers/typo": "The code of typo cannot be loaded: "
        "containers/typo/typo_code.py:1: SyntaxError: '(' was never closed: def create(artifact:.",
    }
    assert [each.split(":")[0] for each in skipped] == ["the whole code of both", "the whole code of image"]


def test_code_is_imported_as_in_its_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import finds no modules in the working folder. It gets only those variables that a service gets."""
    write_tool(tmp_path, "near", "import module_of_the_project\n\ndef create(artifact): ...\n")
    write_tool(tmp_path, "curious", "import os\nos.environ['CLOUD_KEY']\n\ndef create(artifact): ...\n")
    write_tool(tmp_path, "keyed", "import os\nos.environ['WANDB_API_KEY']\n\ndef create(artifact): ...\n")
    (tmp_path / "module_of_the_project.py").touch()
    (tmp_path / "definitions.py").write_text("import os\nos.environ['WANDB_API_KEY']\nos.environ['CLOUD_KEY']\n")
    monkeypatch.chdir(tmp_path)
    for name in ("CLOUD_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("BONSEYES_PASS_ENV", "WANDB_*")
    subject, _ = read_subject(tmp_path)
    findings, skipped = check_imports(subject)
    assert [str(each.file) for each in findings] == ["containers/curious"]
    assert "KeyError: 'CLOUD_KEY'" in findings[0].problem
    assert [each.split(":")[0] for each in skipped] == ["the whole code of near"]
    (finding,) = ask_pipelines(tmp_path)[2]
    assert finding.problem.startswith("It cannot be loaded: definitions.py:3: KeyError: 'CLOUD_KEY'")
