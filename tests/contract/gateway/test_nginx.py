"""Tests for nginx alone: its access service may be down, and it resolves names at each request."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from bonseyes_dagster.gateway.nginx import Nginx, render
from bonseyes_dagster.gateway.routes import DAGSTER
from tests.contract.gateway.dns import Names
from tests.contract.gateway.processes import (
    NGINX,
    TOKEN,
    Gateway,
    build_images,
    has_nginx,
    nginx_program,
    running,
    start_access,
)
from tests.contract.gateway.upstream import STREAMS, Upstream
from tests.waiting import until

pytestmark = pytest.mark.skipif(not has_nginx(), reason="nginx is not installed: Debian's nginx-light is enough")


@pytest.fixture
def nginx(tmp_path: Path, shared_upstream: Upstream) -> Iterator[Gateway]:
    """An nginx for one test."""
    with running(NGINX, tmp_path, shared_upstream, BONSEYES_TOKEN=TOKEN) as gateway:
        yield gateway


def test_without_the_access_service_every_request_is_refused(nginx: Gateway, upstream: Upstream) -> None:
    """Whatever the path and the token; once the service is back, requests pass again."""
    assert nginx.access is not None
    nginx.access.terminate()
    nginx.access.wait(10)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/", "/login", "/healthz", "/dagster", "/dagster/graphql", "/containers/nope/", "/containers/tool/x",
                 *(f"/containers/tool/{stream}?s=0&n=1" for stream in STREAMS)):  # fmt: skip
        for method in ("GET", "POST"):
            answer = requests.request(method, nginx.url + path, data=b"token=x", headers=headers, timeout=20)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            assert answer.headers["Retry-After"] == "1"
            assert answer.json()["error"]["request_id"] == answer.headers["X-Request-Id"]
    assert not upstream.began.is_set()
    start_access(nginx)
    until_s = time.monotonic() + 20
    while nginx.get("/containers/tool/x", headers=headers).status_code != 200:
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_with_a_hanging_access_service_every_request_is_refused(nginx: Gateway) -> None:
    """After some seconds."""
    assert nginx.access is not None
    nginx.access.send_signal(signal.SIGSTOP)
    try:
        answer = nginx.get("/containers/tool/x", headers={"Authorization": f"Bearer {TOKEN}"})
    finally:
        nginx.access.send_signal(signal.SIGCONT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


@pytest.mark.parametrize("path", ["/./pass", "/./error/down", "/%2e/pass", "/x/.././pass", "//./error/access"])
def test_internal_locations_of_nginx_are_not_reachable(nginx: Gateway, path: str) -> None:
    """A path with dots is refused like every such path."""
    status, body = nginx.answer(nginx.head("GET", path, f"Authorization: Bearer {TOKEN}"))
    assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_nginx_refuses_are_refused_in_json(nginx: Gateway, method: str) -> None:
    """Before the access service gets a request."""
    status, body = nginx.answer(nginx.head(method, "/"))
    assert (status, json.loads(body)["error"]["code"]) in ((405, "method_not_allowed"), (400, "bad_request"))


@pytest.mark.parametrize("line", ["Transfer-Encoding: gzip", "Content-Length: -1"])
def test_malformed_http_gets_a_json_error(nginx: Gateway, line: str) -> None:
    """As a bad request, not as a fault of the server."""
    status, body = nginx.answer(nginx.head("POST", "/", line))
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_names_are_looked_up_at_each_request(tmp_path: Path, shared_upstream: Upstream) -> None:
    """Names appear, change and disappear like containers; nginx starts without them."""
    port = shared_upstream.port
    with Names() as names:
        upstreams = {"tool": f"http://tool:{port}", DAGSTER: f"http://web.front:{port}"}
        with running(NGINX, tmp_path, shared_upstream, upstreams=upstreams, resolver=names.address) as gateway:

            def status() -> int:
                return gateway.get("/containers/tool/x").status_code

            assert (status(), gateway.get("/dagster/x").status_code) == (503, 503)
            names.addresses |= {"tool": "127.0.0.1", "web.front": "127.0.0.1"}
            until(lambda: status() == 200, 60)
            assert gateway.get("/dagster/x").status_code == 200
            names.addresses["tool"] = "127.0.0.2"  # no server listens there
            until(lambda: status() == 503, 60)
            del names.addresses["tool"]
            until(lambda: status() == 503, 60)
            assert gateway.get("/dagster/x").status_code == 200


def test_nginx_accepts_the_configuration_of_this_project(tmp_path: Path) -> None:
    """As it is rendered for the image."""
    project = Path(__file__).parents[3]
    argv = ["-m", "bonseyes_dagster.gateway.nginx", str(project / "docker-compose.yml")]
    rendered = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=True).stdout
    file = tmp_path / "nginx.conf"
    file.write_text(rendered)
    checked = subprocess.run([nginx_program(), "-t", "-c", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_names_that_need_quoting_are_quoted(tmp_path: Path) -> None:
    """Regular expressions and strings of nginx hold every valid container name."""
    upstreams = {"a.b-c_d": "http://a.b-c_d", DAGSTER: "http://x:3000"}
    file = tmp_path / "nginx.conf"
    file.write_text(
        render(Nginx(upstreams=upstreams, access="http://access:8080", listen=("8080",), folder=str(tmp_path)))
    )
    checked = subprocess.run([nginx_program(), "-t", "-c", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.docker
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("status", "looked"), [(200, 0), (503, 1)])
def test_the_image_reports_its_health(tmp_path: Path, status: int, looked: int) -> None:
    """The answer comes from its access service."""
    build_images()
    nginx = Nginx(upstreams={}, access="http://127.0.0.1:8099", listen=("8080",), resolver="")
    access = f"server {{ listen 127.0.0.1:8099; return {status}; }}"
    file = tmp_path / "nginx.conf"
    file.write_text(f"{render(nginx).rstrip().removesuffix('}')}{access} }}")
    image, conf = "bonseyes/gateway", f"{file}:/etc/nginx/nginx.conf:ro"
    file.chmod(0o644)
    container = _docker("run", "--rm", "--detach", "--network", "none", "-v", conf, image)
    try:
        kind, *look = json.loads(_docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", container))
        assert kind == "CMD"
        argv = ["docker", "exec", container, *look]
        until(lambda: subprocess.run(argv, check=False, timeout=20).returncode == looked, 60)
    finally:
        _docker("kill", container)


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()
