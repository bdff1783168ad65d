"""Import the code of each tool in a child process: `python -m bonseyes_dagster.docker.check.imports FOLDER`.

The import runs the tool's code. It must not stay in the checking process, and must not end it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bonseyes_dagster.code_errors import describe_code_error
from bonseyes_dagster.description import ToolFolder, load_tool
from bonseyes_dagster.docker.check.finding import Finding
from bonseyes_dagster.docker.check.subject import Subject, Tool
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.environment import chosen_environ
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.code.loading import load_function

__all__ = ["check_imports"]

TIMEOUT_S = 60.0
_LAST_LINES = 3


def check_imports(subject: Subject) -> tuple[list[Finding], list[str]]:
    """Import the code of every tool; return the findings, and a text for each tool that could not be checked."""
    findings: list[Finding] = []
    skipped: list[str] = []
    environ = chosen_environ(os.environ, Settings.from_environ().pass_env)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        answers = pool.map(lambda tool: _ask(tool, environ), subject.tools)
        for tool, (problem, missing) in zip(subject.tools, answers, strict=True):
            if problem:
                findings.append(_finding(subject, tool, problem))
            if missing:
                skipped.append(
                    f"the whole code of {tool.name}: the package {missing!r} is not installed here (maybe in its image)"
                )
    return findings, skipped


def _ask(tool: Tool, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the problem of a tool's code, and the name of a package that is not installed."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-B", "-m", __name__, str(tool.folder)],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its import did not end within {TIMEOUT_S:.0f} s", None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return answer["problem"], answer["missing"]
    except (ValueError, LookupError, TypeError):
        output = " ".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        return f"its import ended the process with status {done.returncode}{': ' if output else ''}{output}", None


def _finding(subject: Subject, tool: Tool, problem: str) -> Finding:
    return Finding(
        rule="tool_imports",
        file=subject.shown(tool.folder),
        problem=f"The code of {tool.name} cannot be loaded: {problem.replace(f'{subject.folder}/', '')}.",
        remedy="Correct the code: the container cannot start with it.",
    )


def _import_code(tool: ToolFolder) -> tuple[str | None, str | None]:
    folders = [tool.folder, *tool.code]
    try:
        load_function(tool)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing and missing not in sys.modules and importlib.util.find_spec(missing) is None:
            # The import stopped at the missing package; check the syntax of all files instead.
            return next(_syntax_errors(folders), None), missing
        return describe_code_error(error, folders), None
    except (Exception, SystemExit) as error:
        return describe_code_error(error, folders), None
    return None, None


def _syntax_errors(folders: Sequence[Path]) -> Iterator[str]:
    for file in (each for folder in folders for each in sorted(folder.rglob("*.py"))):
        try:
            compile(file.read_bytes(), file, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            yield describe_code_error(error, folders)


def main(folder: str) -> None:
    """Import the code of the tool in `folder`, and print the result as JSON."""
    try:
        tool = load_tool(Path(folder))
    except SettingsError:
        tool = None  # the rule `tool_description` reports it
    problem, missing = (None, None) if tool is None or tool.command else _import_code(tool)
    sys.stdout.write(f"\n{json.dumps({'problem': problem, 'missing': missing})}\n")
    sys.stdout.flush()
    # Do not wait for threads that the tool's modules have started.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
