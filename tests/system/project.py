"""A project for tests of the gateway, the dashboard and TensorBoard. Its tool and its pipeline are in-memory twins.

The three services are real processes, as in production. The twins run in threads of the test process, so a test can
control them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from flask import Flask
from werkzeug.serving import make_server

from bonseyes_dagster.model import Parameter, Status, Step, Task, ToolDescription
from bonseyes_dagster.web.app import create_app, json_response
from bonseyes_dagster.web.backend import Backend
from bonseyes_dagster.web.routes import artifact_blueprint
from tests.contract.memory import Job, MemoryBackend
from tests.waiting import free_port

__all__ = ["PARAMETERS", "PipelineTwin", "StandIn", "serve_twin", "tool_description"]

PARAMETERS = (
    Parameter(name="images", type="file", label="Images", description="IDX images.", required=True),
    Parameter(name="dataset", type="artifact", label="Dataset", artifact_type="com.bonseyes.model"),
    Parameter(name="model", type="choice", label="Model", choices=("cnn", "mlp"), default="cnn"),
    Parameter(name="epochs", type="integer", label="Epochs", default=3, minimum=1, maximum=100),
    Parameter(name="learning-rate", type="number", label="Learning rate", default=0.001, minimum=0),
    Parameter(name="augment", type="boolean", label="Augment", default=False),
    Parameter(name="criteria", type="json", label="Criteria", default=[{"metric": "accuracy", "minimum": 0.9}]),
)
TASK = Task(
    name="digits",
    description="Tell handwritten digits apart.",
    output="com.bonseyes.model",
    constraints=({"name": "small", "metric": "model_size_bytes", "maximum": 1_000_000, "description": "Fits."},),
    archives={"train-images": "IDX images to learn from"},
    evaluation_criterias=({"name": "accurate", "metric": "accuracy", "minimum": 0.95},),
    cost_function="cross-entropy",
    evaluation_dataset="test-images",
)


def tool_description(name: str, kind: str = "artifacts", **other: Any) -> ToolDescription:
    """Return the description of a twin."""
    values: dict[str, Any] = {
        "description": f"The twin {name}.",
        "parameters": PARAMETERS,
        "output_type": "com.bonseyes.run" if kind == "runs" else "com.bonseyes.model",
        "version": "0123456789abcdef",
        "collection": f"/{kind}",
    }
    return ToolDescription(name=name, **(values | other))


class PipelineTwin(MemoryBackend):
    """The runs of a pipeline. One step of each run is an artifact of the twin `training`."""

    def _status(self, entry: Any) -> Status:
        status = super()._status(entry)
        steps = [
            Step(name="import", container="import", artifact=f"{entry.name}_import", phase="completed"),
            Step(name="train", container="training", artifact=f"{entry.name}_train", phase=entry.phase),
        ]
        return replace(status, steps=tuple(steps), dagster_url=f"/dagster/runs/{status.run_id}")


@contextmanager
def serve_twin(backend: Backend, task: Task | None = None) -> Iterator[str]:
    """Serve a twin in threads of this process. Yield its base URL."""
    name = backend.describe().name
    app: Flask = create_app(
        name,
        description=lambda: backend.describe().to_json(),
        check_health=backend.check_health,
        gauges=backend.gauges,
        openapi={"openapi": "3.1.0", "info": {"title": name, "version": "1"}, "paths": {}},
    )
    app.register_blueprint(artifact_blueprint(backend))
    if task is not None:
        app.add_url_rule("/task", "task", lambda: json_response(task.to_json()))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)


class StandIn:
    """The project. A context manager. `url` is the URL of its gateway."""

    def __init__(
        self, folder: Path, make: Callable[[Job], None], make_run: Callable[[Job], None] | None = None
    ) -> None:
        self.folder = folder
        self.training = MemoryBackend(tool_description("training"), make)
        description = tool_description(
            "digits-cnn",
            "runs",
            description="Digits by a convolutional network.",
            dagster={"job": "digits_cnn", "url": "/dagster/locations"},
        )
        self.pipeline = PipelineTwin(description, make_run or make, kind="runs")
        self.addresses: dict[str, str] = {}
        self.url = ""
        self._stack = ExitStack()

    def __enter__(self) -> StandIn:
        try:
            self.addresses["training"] = self._stack.enter_context(serve_twin(self.training))
            self.addresses["digits-cnn"] = self._stack.enter_context(serve_twin(self.pipeline, TASK))
            for service in ("dashboard", "visualization"):
                self.addresses[service] = f"http://127.0.0.1:{free_port()}"
            self._write_addresses()
            for service in ("dashboard", "visualization"):
                self._stack.enter_context(self.process(service, self.addresses[service]))
            self.url = f"http://127.0.0.1:{free_port()}"
            self._stack.enter_context(self.process("gateway", self.url))
            for name in ("digits-cnn", "training"):
                requests.post(
                    f"{self.addresses['dashboard']}/containers", json={"name": name}, timeout=10
                ).raise_for_status()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _write_addresses(self) -> None:
        draft = self.folder / "addresses.new"
        draft.write_text(json.dumps(self.addresses))
        draft.replace(self.folder / "addresses.json")

    @contextmanager
    def process(
        self, service: str, url: str, environ: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a service of the project until the end of the block."""
        variables = {
            **os.environ,
            "BONSEYES_ADDRESSES": str(self.folder / "addresses.json"),
            "BONSEYES_VOLUME": str(self.folder / service),
            "BONSEYES_CONTAINER": service,
            "BONSEYES_THREADS": "8",
            **(environ or {}),
        }
        (self.folder / service).mkdir(exist_ok=True)
        argv = [sys.executable, "-m", f"bonseyes_dagster.{service}", "--bind", url.removeprefix("http://")]
        with (self.folder / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(argv, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait_healthy(service, url, process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def _wait_healthy(self, service: str, url: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{url}/healthz", timeout=2).ok:
                    return
            except requests.RequestException:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / f"{service}.log").read_text())
            time.sleep(0.05)
