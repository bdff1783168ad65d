"""Serve one tool in the foreground: `python -m bonseyes_dagster.tool --bind BIND`."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from pathlib import Path

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.tool.worker.processes import SERVER_VARIABLE

_MULE_STOP_S = 20


def main() -> None:
    """Parse the command line, refuse wrong settings early, and become the server."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.tool", description=__doc__)
    parser.add_argument(
        "--bind", default="127.0.0.1:8080", help="HOST:PORT, or the path of a unix socket (%(default)s)"
    )
    parser.add_argument("--tool", type=Path, help="the folder with tool.yml (BONSEYES_TOOL)")
    parser.add_argument("--volume", type=Path, help="the folder that keeps the artifacts (BONSEYES_VOLUME)")
    arguments = parser.parse_args()
    for variable, path in (("BONSEYES_TOOL", arguments.tool), ("BONSEYES_VOLUME", arguments.volume)):
        if path is not None:
            os.environ[variable] = str(path.absolute())
    # After a crash, recovery finds programs of tools by this variable in their environment.
    os.environ[SERVER_VARIABLE] = uuid.uuid4().hex
    try:
        _serve(arguments.bind)
    except SettingsError as error:
        sys.stderr.write(f"bonseyes_dagster.tool: {error.message}\n")
        # A supervisor reports this exit code as a wrong setting. It does not count it as a crash.
        sys.exit(os.EX_CONFIG)


def _serve(bind: str) -> None:
    from bonseyes_dagster.tool.configuration import load
    from bonseyes_dagster.web.server import serve

    _, _, volume, settings = load()
    try:
        volume.make()
    except OSError as error:
        # For example, the container was started without a volume.
        raise SettingsError(f"BONSEYES_VOLUME: artifacts cannot be kept in {settings.volume}: {error}") from error
    serve(
        "bonseyes_dagster.tool.wsgi:application",
        bind,
        settings=settings,
        mule="bonseyes_dagster.tool.app:work",
        mule_stop_s=_MULE_STOP_S,
    )


if __name__ == "__main__":
    main()
