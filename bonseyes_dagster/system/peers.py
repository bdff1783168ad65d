"""Find the user of this machine at the other end of a loopback connection.

A gateway without a token asks for it, and so does a container at a loopback port. The kernel knows the owner of each
socket and finds a socket by its addresses. `sock_diag` answers in microseconds. Where the kernel has no `tcp_diag`,
this module searches `/proc/net/tcp`, which takes 18 ms with 2,000 connections.
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
# The kernel answers during the send; the timeout only guards against a lost answer.
_TIMEOUT_S = 1.0
_numbers = itertools.count(1)
# The answer after its header: family, state, timer, retransmissions, both ports; uid and inode come later.
_STATE_AT, _PORTS_AT, _OWNER_AT = 17, 20, 80
# The states of a connected socket; without LISTEN and TIME_WAIT.
_CONNECTED = frozenset({1, 4, 5, 8})

Address = tuple[str, int]


class Peers:
    """Tells which connections come from the user of this process or from root. For one thread at a time."""

    def __init__(self) -> None:
        self._users = {0, os.getuid()}
        self._diag: socket.socket | None = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._diag.settimeout(_TIMEOUT_S)
        if not self._finds_itself():
            log.info("The kernel has no tcp_diag; this process finds owners of connections in /proc/net/tcp.")
            self._diag.close()
            self._diag = None

    def close(self) -> None:
        """Close the netlink socket."""
        if self._diag is not None:
            self._diag.close()

    def admits(self, peer: Address, server: Address) -> bool:
        """Tell whether the user of this process or root opened the connection from `peer` to `server`."""
        return self.owner(peer, server) in self._users

    def owner(self, peer: Address, server: Address) -> int | None:
        """Return the uid of the process that connected; None when its socket is closed."""
        ends = _plain(peer), _plain(server)
        return _owner_in_tables(*ends) if self._diag is None else _ask_owner(self._diag, *ends)

    def _finds_itself(self) -> bool:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as connection,
        ):
            return self.owner(connection.getsockname(), listener.getsockname()) is not None


def _plain(address: Address) -> Address:
    """Return an IPv4 address in its IPv4 form, also when it comes in its IPv6 form (::ffff:1.2.3.4)."""
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
        log.warning("The kernel did not return the owner of a connection: %s", error)
        return None
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    uid, inode = struct.unpack_from("=II", answer, _OWNER_AT)
    is_it = struct.unpack_from("!HH", answer, _PORTS_AT) == (peer[1], server[1])
    return _owner(uid, inode, answer[_STATE_AT]) if is_it else None


def _owner(uid: int, inode: int, state: int) -> int | None:
    """Return the uid, or None for a closed socket: the kernel reports it with inode 0 and owner root."""
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
    """Yield each table that may list the peer's socket, and the beginning of the socket's row in it."""
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
