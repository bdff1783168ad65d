"""The gateways that the contract tests run on: the embedded one, nginx, and nginx in its image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.gateway.processes import EMBEDDED, IMAGE, NGINX, TOKEN, Gateway, build_images, has_nginx, running
from tests.contract.gateway.upstream import Upstream


@pytest.fixture(scope="package")
def shared_upstream() -> Iterator[Upstream]:
    """One upstream for all tests."""
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    """The upstream with its counters at zero."""
    shared_upstream.wait_until_idle()
    shared_upstream.forget()
    return shared_upstream


# Building takes longer than tests may.
IN_IMAGE = pytest.param(IMAGE, marks=[pytest.mark.docker, pytest.mark.timeout(900)])


@pytest.fixture(scope="package", params=[EMBEDDED, NGINX, IN_IMAGE])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of the gateway."""
    if request.param == NGINX and not has_nginx():
        pytest.skip("nginx is not installed: Debian's nginx-light is enough")
    if request.param == IMAGE:
        build_images()
    return str(request.param)


@pytest.fixture(scope="package")
def gateway(kind: str, shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway without a token."""
    with running(kind, tmp_path_factory.mktemp("gateway"), shared_upstream) as gateway:
        yield gateway


@pytest.fixture(scope="package")
def guarded(kind: str, shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a token."""
    with running(kind, tmp_path_factory.mktemp("guarded"), shared_upstream, BONSEYES_TOKEN=TOKEN) as gateway:
        yield gateway
