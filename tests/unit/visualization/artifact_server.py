"""A small real HTTP server with the reading half of the artifact API, from memory; it counts its requests."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from bonseyes_dagster.errors import BonseyesError, NotFoundError
from bonseyes_dagster.model import Status, now


@dataclass
class FakeArtifact:
    """One artifact of the server."""

    status: Status
    parameters: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, bytearray] = field(default_factory=dict)


class ArtifactServer:
    """A server whose artifacts a test changes directly; a context manager."""

    def __init__(self, kind: str = "artifacts") -> None:
        self.kind = kind
        self.artifacts: dict[str, FakeArtifact] = {}
        self.asked: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ArtifactServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def add(self, name: str, phase: str = "running", **parameters: Any) -> FakeArtifact:
        """Make an artifact."""
        artifact = FakeArtifact(Status(name=name, phase=phase, created=now()), parameters)
        self.artifacts[name] = artifact
        return artifact

    def append(self, name: str, metric: str, *values: float) -> None:
        """Append points to a metric, a second apart."""
        text = self.artifacts[name].metrics.setdefault(metric, bytearray())
        step = text.count(b"\n")
        for value in values:
            text += b"%.3f %d %r\n" % (1.7e9 + step, step, value)
            step += 1

    def finish(self, name: str, phase: str = "completed") -> None:
        """Make an artifact final."""
        old = self.artifacts[name].status
        self.artifacts[name].status = Status(name=name, phase=phase, created=old.created, finished=now())

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """Return the body of a GET."""
        segments = [unquote(segment) for segment in path.strip("/").split("/") if segment]
        self.asked["/".join(["NAME" if i == 1 else s for i, s in enumerate(segments)])] += 1
        if not segments:
            return {"name": "fake", "artifacts": [f"/{self.kind}"]}
        if segments[0] != self.kind:
            raise NotFoundError("no such route")
        if len(segments) == 1:
            return self._page(query)
        artifact = self.artifacts.get(segments[1])
        if artifact is None:
            raise NotFoundError(f"there is no {segments[1]!r}")
        match segments[2:]:
            case ["metrics"]:
                return sorted(artifact.metrics)
            case ["input-parameters"]:
                return artifact.parameters
            case ["metrics", metric, "scalar"] if metric in artifact.metrics:
                return bytes(artifact.metrics[metric][int(query.get("offset", "0")) :])
        raise NotFoundError("no such route")

    def _page(self, query: dict[str, str]) -> list[Any]:
        names = list(self.artifacts)
        if "after" in query:
            if query["after"] not in self.artifacts:
                raise NotFoundError(f"there is no {query['after']!r}")
            names = names[names.index(query["after"]) + 1 :]
        names = names[: int(query.get("limit", len(names) or 1))]
        return [self.artifacts[name].status.to_json() if query.get("detail") else name for name in names]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                status = 200
                try:
                    body = server.answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()})
                except BonseyesError as error:
                    status, body = error.http_status, error.to_json()
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Keep tests quiet."""

        return Handler
