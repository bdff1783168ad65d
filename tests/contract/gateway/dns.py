"""A name server for tests: it answers for the names in `addresses`, and that no other name exists."""

from __future__ import annotations

import socket
import struct
import threading

__all__ = ["Names"]


class Names:
    """Runs in a thread of the test. `address` is its own address; `addresses` may change at any time."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Names:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        host, _, port = self.address.partition(":")
        self._socket.sendto(b"", (host, int(port)))
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        name, end = _name(question)
        address = self.addresses.get(name)
        flags = 0x8180 if address else 0x8183  # NOERROR or NXDOMAIN
        head = question[:2] + struct.pack(">HHHHH", flags, 1, 1 if address else 0, 0, 0) + question[12 : end + 4]
        if address is None:
            return head
        # Valid for ten minutes, as Docker's answers.
        return head + struct.pack(">HHHIH", 0xC00C, 1, 1, 600, 4) + socket.inet_aton(address)


def _name(question: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1
