"""nginx's configuration, rendered from the Compose file and the tables of the embedded gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.gateway.access_service import ANSWERS
from bonseyes_dagster.gateway.headers import CONTENT_POLICY, CORS, FORWARDED, PAGE_POLICY, SECURITY_HEADERS
from bonseyes_dagster.gateway.nginx import Nginx, main, read_upstreams, render
from bonseyes_dagster.gateway.routes import DAGSTER

COMPOSE = """
services:
  gateway: {networks: {edge: {aliases: [gateway.edge]}, front: {}}}
  import: {environment: {BONSEYES_CONTAINER: import}, networks: [tools]}
  export: {environment: ["BONSEYES_CONTAINER=export", "X"]}
  digits:
    environment: {BONSEYES_CONTAINER: digits}
    networks: {front: {aliases: [other, digits.front]}, tools: {}}
  dagster-webserver: {networks: {front: {aliases: [dagster-webserver.front]}, dagster: }}
  postgres: {image: postgres}
"""


def _compose(folder: Path, text: str = COMPOSE) -> Path:
    file = folder / "docker-compose.yml"
    file.write_text(text)
    return file


def test_services_with_a_container_name_are_upstreams(tmp_path: Path) -> None:
    """The host is the service's name, or its alias in the network where it listens. Other services get no route."""
    assert read_upstreams(_compose(tmp_path)) == {
        "import": "http://import",
        "export": "http://export",
        "digits": "http://digits.front",
        DAGSTER: "http://dagster-webserver.front:3000",
    }


@pytest.mark.parametrize("text", ["services: [1]", "services: {a: 1}", "{", "x: 1", "[]"])
def test_an_invalid_compose_file_is_refused(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is one sentence, not a traceback."""
    with pytest.raises(SettingsError):
        read_upstreams(_compose(tmp_path, text))
    assert main([str(tmp_path / "docker-compose.yml")]) == 1
    assert capsys.readouterr().err.startswith("nginx: ")
    assert main([str(tmp_path / "missing.yml")]) == 1


def test_the_command_prints_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration has the addresses from the options."""
    arguments = ["--listen", "gateway.edge:8080", "127.0.0.1:9", "--access", "http://door:1/"]
    assert main([str(_compose(tmp_path)), *arguments]) == 0
    printed = capsys.readouterr().out
    for line in (
        "listen gateway.edge:8080;",
        "listen 127.0.0.1:9;",
        "proxy_pass http://door:1$request_uri;",
        '"digits" "http://digits.front";',
        'proxy_set_header X-Gateway-Containers "import export digits";',
        "resolver 127.0.0.11 valid=1s ipv6=off;",
    ):
        assert line in printed
    assert "postgres" not in printed
    assert "%{" not in printed


def test_nginx_treats_headers_like_the_embedded_gateway() -> None:
    """Both gateways must remove and add the same headers."""
    text = render(Nginx(upstreams={"tool": "http://tool"}, access="http://access:8080", listen=("8080",)))
    for name, value in SECURITY_HEADERS.items():
        assert f'add_header {name} "{value}" always;' in text
        assert f"proxy_hide_header {name};" in text
    for name in CORS:
        assert f"proxy_hide_header {name};" in text
    for policy in (PAGE_POLICY, CONTENT_POLICY):
        assert f'"{policy}";' in text
    for name in FORWARDED:
        assert f"proxy_set_header {name} " in text.lower()
    for name in ANSWERS:
        assert f"auth_request_set $gateway_{name.lower()} $upstream_http_x_gateway_{name.lower()};" in text


def test_only_one_location_does_not_ask_the_access_service() -> None:
    """This location returns the access service's full answer. Any other one would let all requests pass."""
    text = render(Nginx(upstreams={"tool": "http://tool"}, access="http://access:8080", listen=("8080",)))
    assert text.count("auth_request /./pass;") == 1
    assert text.count("auth_request off;") == 1
    location = text[text.index("location @answer {") :]
    assert "auth_request off;" in location[: location.index("}")]


def test_without_a_resolver_the_configuration_has_none() -> None:
    """Tests use addresses instead of names."""
    assert "resolver" not in render(Nginx(upstreams={}, access="http://127.0.0.1:1", listen=("1",), resolver=""))
