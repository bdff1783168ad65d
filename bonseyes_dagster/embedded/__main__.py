"""`python -m bonseyes_dagster.embedded FOLDER`: the supervisor that `bonseyes up --detach` starts in the background."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from bonseyes_dagster.embedded.supervisor import Supervisor
from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.settings import Settings


def main(folder: str) -> int:
    """Run the project until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        supervisor = Supervisor(Project(Path(folder)), Settings.from_environ())
        supervisor.check()
        asyncio.run(supervisor.run())
    except BonseyesError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
