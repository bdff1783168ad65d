"""Holds open a thousand long polls, two hundred followed logs, and slow readers and senders.

Meanwhile it measures the latency of other requests and the server's memory.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from benchmarks.figure import Figure, compare
from benchmarks.many_runs import fill
from benchmarks.service import memory_bytes, pipeline_container, scratch, tool_container
from benchmarks.timing import timed
from bonseyes_dagster.client import Container
from bonseyes_dagster.execution.runs.run_names import run_id_of
from bonseyes_dagster.orchestration.names import job_name
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.tags import PIPELINE_TAG, RUN_TAG

WAITERS, FOLLOWERS, READERS, SENDERS = 1000, 200, 50, 200
REQUESTS = 200
SETTLE_S = 3.0
ROOT = Path(__file__).parents[1]
PIPELINE = "digits-cnn"


@contextmanager
def _hold_requests(container: Container, paths: dict[str, int]) -> Iterator[None]:
    """Send a request for each path, `count` times, and read no answer. Also send incomplete requests."""
    whole = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path, count in paths.items() for _ in range(count)]
    head = f"POST /{container.kind} HTTP/1.1\r\nHost: localhost\r\n"
    body = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    url = urlsplit(container.base_url)
    with ExitStack() as stack:
        for request in [*whole, *[head, head + body] * (SENDERS // 2)]:
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.connect((url.hostname, url.port))
            client.sendall(request.encode())
        yield


def _median_ms(url: str) -> float:
    def ask() -> None:
        answer = requests.get(url, timeout=30)
        assert answer.ok, answer.text

    ask()
    return 1e3 * statistics.median(timed(ask) for _ in range(REQUESTS))


def _figures(
    container: Container, process: psutil.Process, where: str, status: str, paths: dict[str, int]
) -> list[Figure]:
    url = f"{container.base_url}{status}"
    alone_ms, alone_bytes = _median_ms(url), memory_bytes(process)
    with _hold_requests(container, paths):
        time.sleep(SETTLE_S)
        beside_ms, beside_bytes = _median_ms(url), memory_bytes(process)
        health_ms = _median_ms(f"{container.base_url}/healthz") if where == "tool" else None
    crowd = f"beside {sum(paths.values()) + SENDERS:,} held requests"
    figures = [
        compare(f"{where}: an answer {crowd} (alone)", beside_ms, alone_ms, "ms", "under 50 ms", beside_ms < 50),
        compare(f"{where}: memory {crowd} (alone)", beside_bytes / 2**20, alone_bytes / 2**20, "MiB", "", None),
    ]
    if health_ms is not None:
        figures.append(compare(f"{where}: health {crowd}", health_ms, None, "ms", "under 50 ms", health_ms < 50))
    return figures


def _tool(folder: Path) -> list[Figure]:
    with tool_container("patient", folder / "volume") as (container, process):
        container.create("made", {"seconds": 0}).wait(timeout_s=60)
        made = container.create("waits", {"seconds": 600})
        paths = {
            "/artifacts/waits/status?wait=60": WAITERS,
            "/artifacts/waits/log?follow": FOLLOWERS,
            "/artifacts/made/data": READERS,
        }
        figures = _figures(container, process, "tool", "/artifacts/waits/status", paths)
        made.cancel()
        return figures


def _pipeline(folder: Path) -> list[Figure]:
    home = folder / "dagster"
    fill(home, PIPELINE, [step.name for step in load_pipeline(ROOT, PIPELINE).steps], 2, detailed=2)
    with DagsterInstance.from_config(str(home)) as instance:
        run = DagsterRun(
            job_name=job_name(PIPELINE),
            run_id=run_id_of("waits"),
            status=DagsterRunStatus.STARTED,
            tags={RUN_TAG: "waits", PIPELINE_TAG: PIPELINE},
        )
        instance.add_run(run)
    with pipeline_container(PIPELINE, ROOT, home) as container:
        server = next(
            child
            for child in psutil.Process(os.getpid()).children()
            if str(urlsplit(container.base_url).port) in str(child.cmdline())
        )
        paths = {"/runs/waits/status?wait=60": WAITERS, "/runs/waits/log?follow": FOLLOWERS}
        return _figures(container, server, "pipeline container", "/runs?limit=100", paths)


def measure() -> list[Figure]:
    """Hold requests at a tool container and at a pipeline container. Measure other requests meanwhile."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1 << 16), most))
    with scratch() as folder:
        return [*_tool(folder), *_pipeline(folder)]
