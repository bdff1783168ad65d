"""Clients that are slow on purpose, or gone: none of them blocks resources for long."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.contract.gateway.processes import Gateway, read_all, running
from tests.contract.gateway.upstream import Upstream

STALL_S = 1.0


@pytest.fixture(scope="module")
def hasty(kind: str, shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with short timeouts."""
    with running(kind, tmp_path_factory.mktemp("hasty"), shared_upstream, stall_s=STALL_S) as gateway:
        yield gateway


def _is_hung_up_on(connection: socket.socket, within_s: float) -> bool:
    """Tell whether the connection ends in time, whatever comes before."""
    connection.settimeout(within_s)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_headers_must_come_soon(hasty: Gateway) -> None:
    """One header every now and then does not extend the timeout."""
    with hasty.connect() as connection:
        connection.sendall(hasty.head("GET", "/containers/tool/x")[:-2])
        begun_s = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun_s < 10 * STALL_S:
                connection.sendall(b"X: y\r\n")
                time.sleep(STALL_S / 4)


@pytest.mark.parametrize("asked", [False, True])
def test_an_idle_connection_is_closed(hasty: Gateway, asked: bool) -> None:
    """Before a request, and after one."""
    with hasty.connect() as connection:
        if asked:
            connection.sendall(hasty.head("GET", "/containers/tool/x"))
        assert _is_hung_up_on(connection, 10 * STALL_S)


def test_a_body_that_stalls_ends_the_connection(hasty: Gateway, upstream: Upstream) -> None:
    """The connection to the upstream ends, too."""
    with hasty.connect() as connection:
        connection.sendall(hasty.head("POST", "/containers/tool/swallow", "Content-Length: 1000000") + b"x" * 100)
        assert upstream.began.wait(10)
        assert _is_hung_up_on(connection, 10 * STALL_S)
    assert upstream.cancelled.wait(10)


def test_a_slow_body_is_accepted(hasty: Gateway) -> None:
    """As long as some bytes come."""
    with hasty.connect() as connection:
        connection.sendall(hasty.head("POST", "/containers/tool/x", "Content-Length: 20", "Connection: close"))
        for _ in range(20):
            time.sleep(STALL_S / 10)
            connection.sendall(b"x")
        assert b'"size": 20' in read_all(connection)


def test_a_client_that_stops_reading_loses_its_connection(hasty: Gateway, upstream: Upstream) -> None:
    """And the upstream's answer ends, too."""
    with hasty.connect() as connection:
        connection.sendall(hasty.head("GET", f"/containers/tool/bytes?n={2**30}"))
        assert upstream.cancelled.wait(20 * STALL_S)


@pytest.mark.slow
def test_an_upstream_may_be_silent_for_longer(hasty: Gateway) -> None:
    """A long poll, or a pause within an answer, may take longer than a pause of a client."""
    assert hasty.get(f"/containers/tool/wait?s={3 * STALL_S}").status_code == 200
