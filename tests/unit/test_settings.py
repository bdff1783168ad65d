"""The settings from the environment: their defaults, and one error for all mistakes."""

from pathlib import Path

import pytest

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.settings import Settings


def test_defaults_need_no_environment() -> None:
    """An empty environment is valid."""
    settings = Settings.from_environ({})
    assert (settings.host, settings.port, settings.gateway_url) == ("127.0.0.1", 8000, "http://127.0.0.1:8000")


def test_values_are_parsed() -> None:
    """Numbers, paths and lists get their types."""
    settings = Settings.from_environ(
        {
            "BONSEYES_PORT": "8123",
            "BONSEYES_VOLUME": "v",
            "BONSEYES_OUTBOUND": "a.org, b.org",
            "BONSEYES_URL": "http://x/",
        }
    )
    assert settings.port == 8123
    assert settings.volume == Path("v").absolute()
    assert settings.outbound == ("a.org", "b.org")
    assert settings.gateway_url == "http://x"


def test_every_wrong_variable_is_named() -> None:
    """One error names two mistakes, each with its variable."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"BONSEYES_PORT": "0", "BONSEYES_LOG_LEVEL": "LOUD"})
    assert "BONSEYES_PORT" in caught.value.message
    assert "BONSEYES_LOG_LEVEL" in caught.value.message


@pytest.mark.parametrize("text", ["A=B", "*", "*_KEY", "UWSGI_INI", "http_proxy", "HTTPS_PROXY"])
def test_a_variable_that_cannot_be_passed_is_refused(text: str) -> None:
    """Without the error, it would be left out silently."""
    with pytest.raises(SettingsError, match="BONSEYES_PASS_ENV"):
        Settings.from_environ({"BONSEYES_PASS_ENV": text})


@pytest.mark.parametrize(
    "url", ["http://x/models", "https://x/models/", "http://x?a=b", "http://x#a", "x:8000", "ftp://x", "http://u:p@x"]
)
def test_a_url_with_a_path_is_refused(url: str) -> None:
    """The pages of Dagster and of the dashboard are at the root of their host."""
    with pytest.raises(SettingsError, match=r"BONSEYES_URL=.*must"):
        Settings.from_environ({"BONSEYES_URL": url})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://models.example.org/", "http://[::1]:8000"])
def test_a_url_may_be_any_origin(url: str) -> None:
    """The final slash is removed before paths are added."""
    assert Settings.from_environ({"BONSEYES_URL": url}).gateway_url == url.rstrip("/")
