"""`bonseyes check` imports each tool's code, in a process of its own."""

from pathlib import Path

from bonseyes_dagster.deployment.check.imports import check_imports
from bonseyes_dagster.deployment.check.subject import read_subject


def write_tool(project: Path, name: str, code: str) -> None:
    """Write a tool whose module is `code`."""
    folder = project / "containers" / name
    folder.mkdir(parents=True)
    (folder / "tool.yml").write_text(
        f"{{name: {name}, description: d, entry_point: '{name}_code:create', output_type: x}}"
    )
    (folder / f"{name}_code.py").write_text(code)


def test_code_that_cannot_be_imported_is_found(tmp_path: Path) -> None:
    """A package that only the tool's image has is a note, but a syntax error behind it is a finding."""
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
    assert [each.split(":")[0] for each in skipped] == ["all of both", "all of image"]
