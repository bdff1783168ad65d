"""The root of the command: its options, its error messages and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from bonseyes_dagster.client.command import _artifacts, _completion, _project, _runs
from bonseyes_dagster.client.command._exits import EXITS, INTERNAL, INTERRUPTED, PIPE_CLOSED, UNREACHABLE, exit_code
from bonseyes_dagster.client.command._extensions import ExtensibleGroup
from bonseyes_dagster.client.command._printing.output import clean, print_json
from bonseyes_dagster.client.command._state import State
from bonseyes_dagster.errors import BonseyesError, ConnectionFailedError, NotFoundError, UnauthorizedError
from bonseyes_dagster.version import __version__

__all__ = ["cli", "main"]

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in EXITS.items())

# By the noun after "There is no": the command that lists the existing ones.
_HINTS = {
    "container": "`bonseyes containers` lists all containers.\n",
    "artifact": "`bonseyes artifacts` lists all artifacts.\n",
    "run": "`bonseyes runs` lists all runs.\n",
}


class _PipeClosedError(Exception):
    """The reader of our output has closed the pipe."""


class _Root(ExtensibleGroup):
    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command, and flush its output."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            # click would exit with 1, the code of a failed run.
            raise _PipeClosedError from error
        return result


_HELP = """Run pipelines of tool containers, and get their results.

\b
bonseyes up                                      start the project on this machine
bonseyes run digits-cnn --name first --wait -f train-images=images.gz ...
bonseyes runs                                    list the runs
bonseyes runs log digits-cnn/first --follow      watch a run
bonseyes artifact data benchmarking/first_benchmark -o report
"""


@click.group(
    cls=_Root,
    help=_HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EPILOG,
)
@click.option("--url", envvar="BONSEYES_URL", help="The project's address.  [env: BONSEYES_URL; http://127.0.0.1:8000]")
@click.option(
    "--token", envvar="BONSEYES_TOKEN", help="The project's token.  [env: BONSEYES_TOKEN, which ps does not show]"
)
@click.option("--json", is_flag=True, help="Print one JSON document and nothing else.")
@click.version_option(__version__, prog_name="bonseyes")
@click.pass_context
def cli(context: click.Context, url: str | None, token: str | None, json: bool) -> None:
    state = context.ensure_object(State)
    state.url, state.token, state.json = url, token, json or state.json


for _command in (*_runs.COMMANDS, *_artifacts.COMMANDS, *_project.COMMANDS, *_completion.COMMANDS):
    cli.add_command(_command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code. Print a sentence for an expected error, not a traceback."""
    state = State()
    try:
        code = cli.main(argv, prog_name="bonseyes", standalone_mode=False, obj=state)
    except _PipeClosedError:
        # Python flushes standard output at exit: let it write to /dev/null, or it prints another error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE_CLOSED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        if state.json:
            print_json({"error": {"code": "usage", "message": error.format_message(), "detail": None}})
        sys.exit(error.exit_code)
    except BonseyesError as error:
        _print_error(error, state)
        sys.exit(exit_code(error))
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(error: BonseyesError, state: State) -> None:
    click.echo(f"bonseyes: {clean(error.message)}", err=True)
    if isinstance(error.detail, dict):
        for field, sentence in error.detail.items():
            click.echo(f"  {clean(str(field))}: {clean(str(sentence))}", err=True)
    if isinstance(error, ConnectionFailedError):
        click.echo("Is the project running (bonseyes up), and is this its address (--url, BONSEYES_URL)?", err=True)
    if isinstance(error, NotFoundError):
        click.echo(_HINTS.get(" ".join(error.message.split()[3:4]), ""), err=True, nl=False)
    if isinstance(error, UnauthorizedError):
        click.echo("The project wants a token: set BONSEYES_TOKEN or give --token.", err=True)
    if error.request_id and exit_code(error) in (INTERNAL, UNREACHABLE):
        # The id finds the request in the logs; other errors need no look into the logs.
        click.echo(f"(request {clean(error.request_id)})", err=True)
    if state.json:
        print_json(error.to_json())
