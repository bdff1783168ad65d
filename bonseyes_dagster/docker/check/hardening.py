"""Rules about the rights and resources of a container: only what its work needs, and within limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bonseyes_dagster.docker.check.finding import Finding
from bonseyes_dagster.docker.check.subject import SOCKET_PROXY, Subject
from bonseyes_dagster.docker.compose.files import ComposeService
from bonseyes_dagster.errors import SettingsError

__all__ = ["RULES"]

# All keys that a service may have. Other keys of Compose give access to the machine, as `privileged`, `devices` and
# `pid` do, or include settings from a place that is not checked, as `extends` and `volumes_from` do.
_KEYS = """
    cap_drop command container_name cpu_period cpu_quota cpu_shares cpus cpuset depends_on deploy dns dns_opt dns_search
    entrypoint env_file environment expose extra_hosts healthcheck hostname image init labels logging mem_limit
    mem_reservation memswap_limit network_mode networks pids_limit platform ports profiles pull_policy read_only restart
    scale security_opt shm_size stdin_open stop_grace_period stop_signal tmpfs tty ulimits user volumes working_dir
"""
# A name or a number, but not root's.
_USER = re.compile(r"(?!root\b)([a-z_][\w-]*|[1-9]\d*)(:[\w-]+)?")
_POSITIVE = re.compile(r"[\d.]*[1-9]")
_MOUNTED = frozenset({"volume", "tmpfs"})
_SOCKET = "/var/run/docker.sock"
_SOCKET_PROXY_MODULE = "bonseyes_dagster.docker.inside.socket_proxy"


def known_keys(subject: Subject) -> Iterator[Finding]:
    """A service has only keys that are known to be harmless."""
    known = set(_KEYS.split())
    for name, service in subject.services.items():
        for key in (key for key, value in service.raw.items() if value and not key.startswith("x-")):
            if key not in known:
                yield subject.at_service(
                    name,
                    f"it has `{key}`, which no container here may have.",
                    "Remove it: a container may use its image, volumes and networks, and nothing of the machine.",
                )


def runs_as_nobody(subject: Subject) -> Iterator[Finding]:
    """No container runs as root, by its service or by its image."""
    for name, service in subject.services.items():
        try:
            own_user = service.raw.get("user")
            user = subject.user_of(service.repository) if own_user is None else str(own_user)
        except SettingsError:
            continue  # the rules about images report it
        if not _USER.fullmatch(user) and not _is_socket_proxy(service):
            yield subject.at_service(
                name,
                f"it runs as {user!r}." if user else "it has no user.",
                "End its Dockerfile with `USER 10001:10001`, or set `user` here to a user other than root.",
            )


def mounts_volumes_only(subject: Subject) -> Iterator[Finding]:
    """No container mounts files of the machine: with the engine's socket it could control the machine."""
    for name, service in subject.services.items():
        for mount in service.mounts:
            is_allowed = _is_socket_proxy(service) and mount.target == _SOCKET
            if mount.kind not in _MOUNTED and not is_allowed:
                yield subject.at_service(
                    name,
                    f"it mounts {mount.source or 'the value of an unset variable'}, which is the machine's.",
                    "Keep files in a named volume, or copy them into the image.",
                )
    for volume, entry in (subject.compose_model.volumes if subject.compose_model else {}).items():
        device = (entry.get("driver_opts") or {}).get("device")
        if str(device).startswith("/"):
            yield subject.at_service(
                volume,
                f"the volume is {device}, which is the machine's.",
                "Make it with `docker volume create`, and declare it `external: true`.",
            )


def _is_socket_proxy(service: ComposeService) -> bool:
    """Tell whether a service is the socket proxy, which needs root and the engine's socket."""
    return service.name == SOCKET_PROXY and _SOCKET_PROXY_MODULE in service.command


def _resources(raw: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return ((raw.get("deploy") or {}).get("resources") or {}).get(kind) or {}


def _limited(*keys: str, resource: str) -> Callable[[Mapping[str, Any]], bool]:
    def is_limited(raw: Mapping[str, Any]) -> bool:
        values = (*map(raw.get, keys), _resources(raw, "limits").get(resource))
        return any(_POSITIVE.match(str(value)) for value in values)

    return is_limited


def _has_gpus_only(raw: Mapping[str, Any]) -> bool:
    devices = _resources(raw, "reservations").get("devices") or ()
    return all("gpu" in (device.get("capabilities") or ()) for device in devices)


# The problem of a container that lacks a limit, the setting of the limit, and the test for it.
_HARDENING: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("it can write to its root file system", "read_only: true", lambda raw: raw.get("read_only") is True),
    ("it has capabilities", "cap_drop: [ALL]", lambda raw: "ALL" in (raw.get("cap_drop") or ())),
    (
        "it can gain privileges",
        'security_opt: ["no-new-privileges:true"], and nothing else there',
        lambda raw: raw.get("security_opt") == ["no-new-privileges:true"],
    ),
    ("it has devices of the machine", "no `devices` but those with `capabilities: [gpu]`", _has_gpus_only),
    ("its memory has no limit", "mem_limit", _limited("mem_limit", resource="memory")),
    ("its processors have no limit", "cpu_quota, or cpus", _limited("cpu_quota", "cpus", resource="cpus")),
    ("its processes have no limit", "pids_limit", _limited("pids_limit", resource="pids")),
    ("it is not started again when it ends", "restart: unless-stopped", lambda raw: bool(raw.get("restart"))),
)


def hardening(subject: Subject) -> Iterator[Finding]:
    """Every container has no more rights than its work needs, and limits on its resources."""
    for name, service in subject.services.items():
        for problem, remedy, is_right in _HARDENING:
            if not is_right(service.raw):
                yield subject.at_service(name, f"{problem}.", f"It must have: {remedy}.")


def healthcheck(subject: Subject) -> Iterator[Finding]:
    """Every service that keeps running has a health check, its own or its image's."""
    for name, service in subject.services.items():
        check = service.raw.get("healthcheck") or {}
        is_off = check.get("disable") is True or check.get("test") in ("NONE", ["NONE"])
        has_one = bool(check.get("test")) or subject.has_healthcheck(subject.image_of(service))
        if not _ends_by_itself(service) and (is_off or not has_one):
            yield subject.at_service(name, "it has no healthcheck.", "Add a `healthcheck` to it, or to its Dockerfile.")


def _ends_by_itself(service: ComposeService) -> bool:
    return service.raw.get("restart") in ("no", "on-failure", False)


RULES = (known_keys, runs_as_nobody, mounts_volumes_only, hardening, healthcheck)
