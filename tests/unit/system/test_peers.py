"""The user at the other end of a loopback connection, from the kernel."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from bonseyes_dagster.system.peers import Peers
from tests.other_user import NOBODY, as_other_user, needs_root


@pytest.fixture(params=["sock_diag", "tables"])
def peers(request: pytest.FixtureRequest) -> Iterator[Peers]:
    """Return Peers for each of the two ways to find the owner."""
    peers = Peers()
    if request.param == "tables":
        peers.close()
        peers._diag = None
    elif peers._diag is None:
        pytest.skip("this kernel has no tcp_diag")
    yield peers
    peers.close()


def _connect(address: str, host: str | None = None) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection to `address`, under the name `host`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection((host or address, port))
        return client, listener.accept()[0]


def _owner(peers: Peers, server: socket.socket) -> int | None:
    return peers.owner(server.getpeername()[:2], server.getsockname()[:2])


@needs_root
@pytest.mark.parametrize(
    ("address", "host"), [("127.0.0.1", None), ("127.0.0.1", "::ffff:127.0.0.1"), ("::1", None), ("127.9.9.9", None)]
)
def test_the_owner_of_a_connection_is_known(peers: Peers, address: str, host: str | None) -> None:
    """Over IPv4, over IPv6, and from an IPv6 socket of a client with an IPv4 address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]

        answers: list[int | None] = []

        def connect() -> str:
            with socket.create_connection((host or address, port)) as client:
                return client.recv(1).decode()  # keeps the connection open until the check is done

        def ask() -> None:
            with listener.accept()[0] as server:
                answers.append(_owner(peers, server))

        asking = threading.Thread(target=ask)
        asking.start()
        as_other_user(connect)
        asking.join()
    assert answers == [NOBODY]
    client, server = _connect(address, host)
    with client, server:
        assert _owner(peers, server) == 0


def test_a_connection_closed_by_its_client_has_no_owner(peers: Peers) -> None:
    """The kernel shows such a socket as root's."""
    for linger in (False, True):
        client, server = _connect("127.0.0.1")
        ends = server.getpeername(), server.getsockname()
        if linger:  # resets the connection, so the kernel has no row for it
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"DELETE")
        client.close()
        assert peers.owner(*ends) is None
        assert not peers.admits(*ends)
        server.close()
        assert peers.owner(*ends) is None


def test_a_listening_socket_is_not_a_client(peers: Peers) -> None:
    """A listener at the client's former port must not count as that client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert peers.owner(listener.getsockname(), ("127.0.0.1", 8000)) is None
