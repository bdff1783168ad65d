"""`python -m bonseyes_dagster.visualization --bind BIND` serves the visualization container in the foreground."""

from __future__ import annotations

import argparse
import sys

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.web.server import serve


def main(argv: list[str] | None = None) -> int:
    """Become the server; return only if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.visualization", description=__doc__)
    parser.add_argument("--bind", default="0.0.0.0:80", help="HOST:PORT, or the path of a unix socket (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        # One process holds the catalogue and the points in memory; a second one would send all requests twice.
        serve(
            "bonseyes_dagster.visualization.wsgi:application",
            arguments.bind,
            settings=Settings.from_environ(),
            processes=1,
        )
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"visualization: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
