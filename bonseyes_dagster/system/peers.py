"""Which user of this machine is at the other end of a loopback connection.

A gateway without a token asks, and a container at a loopback port. The kernel knows the owner of each socket, and finds
one by its addresses: through `sock_diag` in microseconds, or by a look through `/proc/net/tcp`, which takes 18 ms with
2,000 connections, where the kernel has no `tcp_diag`.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Peers"]

log = logging.getLogger(__name__)

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_NO_COOKIE = b"\xff" * 8
_ANSWER_BYTES = 8192
# The answer is there when the question is sent.
_TIMEOUT_S = 1.0
_numbers = itertools.count(1)
# In the answer, behind the header: family, state, timer, retransmissions, then both ports; uid and inode further on.
_STATE_AT, _PORTS_AT, _OWNER_AT = 17, 20, 80
# Neither one that only listens, nor one in TIME_WAIT.
_CONNECTED = frozenset({1, 4, 5, 8})

Address = tuple[str, int]


class Peers:
    """Tells who may connect: the user of this process, and root. For one thread at a time."""

    def __init__(self) -> None:
        self._users = {0, os.getuid()}
        self._diag: socket.socket | None = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._diag.settimeout(_TIMEOUT_S)
        if not self._finds_itself():
            log.info("The kernel has no tcp_diag: owners of connections are sought in /proc/net/tcp.")
            self._diag.close()
            self._diag = None

    def close(self) -> None:
        """Close what was opened."""
        if self._diag is not None:
            self._diag.close()

    def admits(self, peer: Address, server: Address) -> bool:
        """Tell whether the connection from `peer` to `server`, both on this machine, is of a user who may ask."""
        return self.owner(peer, server) in self._users

    def owner(self, peer: Address, server: Address) -> int | None:
        """Return the uid of the process that has connected; None when its socket is gone or is closed."""
        ends = _plain(peer), _plain(server)
        return _owner_in_tables(*ends) if self._diag is None else _ask_owner(self._diag, *ends)

    def _finds_itself(self) -> bool:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as connection,
        ):
            return self.owner(connection.getsockname(), listener.getsockname()) is not None


def _plain(address: Address) -> Address:
    """Return the address without the IPv6 form of an IPv4 one, in which the kernel has it, too."""
    host = ipaddress.ip_address(address[0].partition("%")[0])
    return str(getattr(host, "ipv4_mapped", None) or host), address[1]


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _ask_owner(diag: socket.socket, peer: Address, server: Address) -> int | None:
    family = _family(peer)
    packed = b"".join(socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (peer, server))
    ends = struct.pack("!HH", peer[1], server[1]) + packed + struct.pack("=I", 0) + _NO_COOKIE
    body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends
    number = next(_numbers)
    try:
        diag.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, number, 0) + body)
        answer = diag.recv(_ANSWER_BYTES)
        while _HEADER.unpack_from(answer)[3] != number:
            answer = diag.recv(_ANSWER_BYTES)
    except OSError as error:
        log.warning("The kernel does not tell the owner of a connection: %s", error)
        return None
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    uid, inode = struct.unpack_from("=II", answer, _OWNER_AT)
    is_it = struct.unpack_from("!HH", answer, _PORTS_AT) == (peer[1], server[1])
    return _owner(uid, inode, answer[_STATE_AT]) if is_it else None


def _owner(uid: int, inode: int, state: int) -> int | None:
    """A socket that its process has closed has no inode any more, and root for an owner."""
    return uid if inode and state in _CONNECTED else None


def _owner_in_tables(peer: Address, server: Address) -> int | None:
    for table, pattern in _rows(peer, server):
        lines = Path("/proc/net", table).read_bytes()
        at = lines.find(pattern)
        while at >= 0:
            words = lines[at + len(pattern) : lines.index(b"\n", at)].split()
            owner = _owner(int(words[4]), int(words[6]), int(words[0], 16))
            if owner is not None:
                return owner
            at = lines.find(pattern, at + 1)
    return None


def _rows(peer: Address, server: Address) -> Iterator[tuple[str, bytes]]:
    """Yield each table in which the peer's socket may be, and how its row begins there."""
    if _family(peer) is socket.AF_INET:
        yield "tcp", _row(peer, server)
        peer, server = (f"::ffff:{peer[0]}", peer[1]), (f"::ffff:{server[0]}", server[1])
    yield "tcp6", _row(peer, server)


def _row(*ends: Address) -> bytes:
    return b" ".join(_hex(end) for end in ends) + b" "


def _hex(address: Address) -> bytes:
    packed = socket.inet_pton(_family(address), address[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{address[1]:04X}".encode()
