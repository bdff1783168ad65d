"""A relay before Postgres. It breaks a connection when the server has committed, and the client has no reply yet."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# The end of the server's last reply when all requests are done, and no transaction is open.
_READY = b"Z\x00\x00\x00\x05I"


class Relay:
    """Forwards all data, except the replies that a test makes it lose."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wanted: bytes | None = None
        self.hangs_up_at_once = False
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_reply(self, statement: str, *, at_once: bool = False) -> None:
        """Break the next connection that sends `statement`: after the commit, or `at_once`."""
        self.hangs_up_at_once = at_once
        self._wanted = statement.encode()

    @property
    def has_lost(self) -> bool:
        """Tell whether the reply has been lost."""
        return self._wanted is None

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                passage = _Passage(self, client, server)
                threading.Thread(target=passage.pass_requests, daemon=True).start()
                threading.Thread(target=passage.pass_replies, daemon=True).start()

    def take(self, request: bytes) -> bool:
        """Tell whether to lose the reply to this request; only one connection loses a reply."""
        if self._wanted is None or self._wanted not in request:
            return False
        self._wanted = None
        return True


class _Passage:
    """One connection of a client, and its connection to the server."""

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self._is_doomed = False

    def pass_requests(self) -> None:
        with suppress(OSError):
            while request := self._client.recv(65536):
                self._is_doomed = self._is_doomed or self._relay.take(request)
                self._server.sendall(request)
                if self._is_doomed and self._relay.hangs_up_at_once:
                    break
        self._close()

    def pass_replies(self) -> None:
        with suppress(OSError):
            while reply := self._server.recv(65536):
                if self._is_doomed and reply.endswith(_READY):
                    break
                self._client.sendall(reply)
        self._close()

    def _close(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def relay_to(port: int) -> Iterator[Relay]:
    """Yield a relay before the server at `port`."""
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.close()
