"""Check that the gateway can listen at its port, and find the process that uses it."""

import contextlib
import socket

import psutil

from bonseyes_dagster.errors import SettingsError

__all__ = ["check_port"]


def check_port(host: str, port: int) -> None:
    """Raise SettingsError when the gateway cannot listen at the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"Port {port} of {host} cannot be used ({error.strerror}{_holder(port)}); "
                "choose another port with --port or BONSEYES_PORT."
            ) from error


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            taken = connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
            if taken and connection.pid:
                return f", by process {connection.pid}, {psutil.Process(connection.pid).name()}"
    return ""
