"""The visualization container's WSGI application: TensorBoard, and the routes that every container has."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.backend import application
from tensorboard.plugins.core import core_plugin
from tensorboard.plugins.hparams import hparams_plugin
from tensorboard.plugins.metrics import metrics_plugin
from tensorboard.plugins.scalar import scalars_plugin

from bonseyes_dagster import urls
from bonseyes_dagster.client import Addresses, Container
from bonseyes_dagster.errors import BonseyesError, MethodNotAllowedError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.visualization import frontend
from bonseyes_dagster.visualization.catalogue import Catalogue
from bonseyes_dagster.visualization.provider import ArtifactDataProvider
from bonseyes_dagster.web.app import create_app
from bonseyes_dagster.web.caller_check import CallerCheck
from bonseyes_dagster.web.openapi import named_document

__all__ = ["Containers", "create"]

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

_OPENAPI = Path(__file__).with_name("openapi.yml")
_REGISTRY_S = 10.0
_REGISTRY_LIMIT_BYTES = 1 << 26


class Containers:
    """The project's containers: those in the addresses file, and those in the dashboard's registry."""

    def __init__(self, addresses: Addresses, *, registry_s: float = _REGISTRY_S) -> None:
        self._addresses = addresses
        self._registry_s = registry_s
        self._lock = threading.Lock()
        self._registered: frozenset[str] = frozenset()
        self._asked_at = float("-inf")

    def __call__(self) -> dict[str, str]:
        """Return the base URLs of the containers by name."""
        names = {*self._addresses.containers(), *self._ask_registry()}
        return {name: self._addresses.base_url(name) for name in sorted(names) if urls.is_name(name)}

    def _ask_registry(self) -> frozenset[str]:
        with self._lock:
            if time.monotonic() - self._asked_at < self._registry_s:
                return self._registered
            self._asked_at = time.monotonic()
            dashboard = Container(self._addresses.base_url("dashboard"), retry_s=0.0)
            with suppress(BonseyesError):  # keep the known names when the dashboard does not answer
                names = dashboard.transport.get_json(
                    "/containers", frozenset, read_timeout_s=5.0, limit_bytes=_REGISTRY_LIMIT_BYTES
                )
                # Keep a known name: while its container is down, the name may not resolve.
                known = (name for name in names if name in self._registered or self._addresses.is_known(name))
                self._registered = frozenset(known)
            return self._registered


def create(settings: Settings | None = None) -> WsgiApp:
    """Return the application with the settings of the environment; it starts no thread before its first request."""
    settings = settings or Settings.from_environ()
    catalogue = Catalogue(Containers(Addresses.from_settings(settings)))
    provider = ArtifactDataProvider(catalogue)
    name = settings.container or "visualization"
    base = create_app(
        name,
        description=None,  # `/` is TensorBoard's
        check_health=lambda: None,
        gauges=lambda: _gauges(provider),
        openapi=named_document(_OPENAPI, name),
    )
    return _Application(base, tensorboard(provider), CallerCheck(name))


def tensorboard(provider: ArtifactDataProvider) -> WsgiApp:
    """Return TensorBoard's application with the data of `provider` and the plugins for scalars."""
    flags = argparse.Namespace(
        logdir="", logdir_spec="", path_prefix="", generic_data="true", samples_per_plugin={}, window_title="Metrics"
    )
    plugins = [
        core_plugin.CorePluginLoader(),
        metrics_plugin.MetricsPlugin,
        scalars_plugin.ScalarsPlugin,
        hparams_plugin.HParamsPlugin,
    ]
    app: WsgiApp = application.TensorBoardWSGIApp(flags, plugins, provider, frontend.provide())
    return app


class _Application:
    """Sends the few paths that every container has to the base application, all other paths to TensorBoard."""

    def __init__(self, base: WsgiApp, board: WsgiApp, caller_check: CallerCheck) -> None:
        self.base = base
        self._caller_check = caller_check
        self.board = board
        self._paths = {urls.HEALTHZ, urls.METRICS, urls.OPENAPI}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").rstrip("/")
        # The base application refuses requests from the wrong caller, with a JSON error.
        if path in self._paths or not self._caller_check.admits(environ):
            return self.base(environ, start_response)
        # TensorBoard's frontend sends POST requests only below /experiment/ID/data/.
        allowed = ("GET", "HEAD", "POST") if "/data/" in path else ("GET", "HEAD")
        if environ["REQUEST_METHOD"] not in allowed:
            return _refuse_method(environ, start_response, ", ".join(allowed))
        return self.board(environ, start_response)


def _refuse_method(environ: dict[str, Any], start_response: Any, allowed: str) -> list[bytes]:
    # TensorBoard answers every method like GET.
    message = f"{environ.get('PATH_INFO', '/')} does not take {environ['REQUEST_METHOD']}; it takes {allowed}."
    body = json.dumps(MethodNotAllowedError(message).to_json()).encode()
    headers = [("Allow", allowed), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("405 Method Not Allowed", headers)
    return [body]


def _gauges(provider: ArtifactDataProvider) -> Mapping[str, float]:
    containers, artifacts = provider.catalogue.counts()
    return {"containers": containers, "artifacts": artifacts, "points_cached": provider.cache.points}
