"""Serve one pipeline in the foreground: `python -m bonseyes_dagster.pipeline --bind BIND`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bonseyes_dagster.errors import SettingsError


def main() -> None:
    """Parse the command line, refuse wrong settings, and become the server."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.pipeline", description=__doc__)
    parser.add_argument(
        "--bind", default="127.0.0.1:8080", help="HOST:PORT, or the path of a unix socket (%(default)s)"
    )
    parser.add_argument("--pipeline", help="the pipeline's name (BONSEYES_PIPELINE)")
    parser.add_argument("--project", type=Path, help="the folder with definitions.py (BONSEYES_PROJECT)")
    parser.add_argument("--volume", type=Path, help="the folder that keeps uploads (BONSEYES_VOLUME)")
    arguments = parser.parse_args()
    for name in ("pipeline", "project", "volume"):
        value = getattr(arguments, name)
        if value is not None:
            os.environ[f"BONSEYES_{name.upper()}"] = str(value.absolute() if isinstance(value, Path) else value)
    try:
        _serve(arguments.bind)
    except SettingsError as error:
        sys.stderr.write(f"bonseyes_dagster.pipeline: {error.message}\n")
        # With this exit code a supervisor reports wrong settings. It does not count a crash.
        sys.exit(os.EX_CONFIG)


def _serve(bind: str) -> None:
    from bonseyes_dagster.pipeline.configuration import load_settings
    from bonseyes_dagster.web.server import serve

    settings = load_settings()
    # Dagster takes much memory in each process, and a waiting thread takes little: one process gets all threads.
    threads = settings.processes * settings.threads
    serve("bonseyes_dagster.pipeline.wsgi:application", bind, settings=settings, processes=1, threads=threads)


if __name__ == "__main__":
    main()
