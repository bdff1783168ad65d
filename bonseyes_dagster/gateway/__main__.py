"""`python -m bonseyes_dagster.gateway --bind HOST:PORT` starts the embedded gateway, or nginx's access service."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.gateway import access_service, embedded
from bonseyes_dagster.settings import Settings

log = logging.getLogger("bonseyes_dagster.gateway")


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.gateway", description=__doc__)
    parser.add_argument("--bind", help="HOST:PORT; BONSEYES_HOST and BONSEYES_PORT by default")
    parser.add_argument("--access", action="store_true", help="start the access service for nginx; needs --bind")
    arguments = parser.parse_args(argv)
    if arguments.access and not arguments.bind:
        parser.error("--access needs --bind: BONSEYES_HOST and BONSEYES_PORT are the published address of nginx")
    try:
        settings = Settings.from_environ()
        host, port = _bind(arguments.bind) if arguments.bind else (settings.host, settings.port)
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
        asyncio.run(_serve(settings, host, port, access=arguments.access))
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


def _bind(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"--bind {text}: must be HOST:PORT")
    return host.strip("[]"), int(port)


def _check(settings: Settings) -> None:
    if settings.addresses is None:
        # Without the list, a client could make the gateway connect to any host, by its name.
        raise SettingsError("BONSEYES_ADDRESSES must name the file that lists the project's containers.")


async def _serve(settings: Settings, host: str, port: int, *, access: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    if access:
        runner = await access_service.start(settings, host, port)
    else:
        _check(settings)
        runner = await embedded.start(settings, host, port)
    log.info("The %s listens on %s", "access service" if access else "gateway", runner.addresses)
    try:
        await stopped.wait()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
