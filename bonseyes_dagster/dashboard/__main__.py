"""`python -m bonseyes_dagster.dashboard --bind BIND` serves the dashboard container in the foreground."""

from __future__ import annotations

import argparse
import sys

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.web.server import serve


def main(argv: list[str] | None = None) -> int:
    """Replace this process by the server. Return only if the server cannot start."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.dashboard", description=__doc__)
    parser.add_argument("--bind", default="0.0.0.0:80", help="HOST:PORT, or the path of a unix socket (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        settings = Settings.from_environ()
        if settings.volume is None:
            raise SettingsError("BONSEYES_VOLUME is not set; it must be the folder for the dashboard's registry.")
        serve("bonseyes_dagster.dashboard.wsgi:application", arguments.bind, settings=settings)
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"dashboard: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
