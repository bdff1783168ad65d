"""The choice of the shell's variables that a project's processes get."""

from __future__ import annotations

import pytest

from bonseyes_dagster.local.environment import chosen_environ


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN", "SSH_AUTH_SOCK", "DATABASE_URL", "LD_PRELOAD"]
)
def test_secrets_of_the_shell_are_left_out(name: str) -> None:
    """Nobody listed them."""
    assert chosen_environ({name: "x", "PATH": "/bin"}, ()) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "name", ["HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "REQUESTS_CA_BUNDLE", "BONSEYES_THREADS"]
)
def test_what_programs_need_is_kept(name: str) -> None:
    """By name, or by the beginning of the name."""
    assert chosen_environ({name: "x"}, ()) == {name: "x"}


def test_a_setting_adds_variables() -> None:
    """Names, and beginnings of names; a name is no beginning."""
    environ = {"WANDB_API_KEY": "a", "WANDB_API_KEY_2": "b", "DB_URL": "c", "DB_USER": "d"}
    assert chosen_environ(environ, ("WANDB_API_KEY", "DB_*")) == {"WANDB_API_KEY": "a", "DB_URL": "c", "DB_USER": "d"}


@pytest.mark.parametrize("name", ["UWSGI_INI", "http_proxy", "HTTPS_PROXY", "no_proxy", "BONSEYES_TOKEN"])
def test_no_pattern_adds_what_services_must_not_have(name: str) -> None:
    """Not even one that matches everything that begins with the same letter."""
    assert chosen_environ({name: "x"}, (f"{name[0]}*",)) == {}
