"""The choice of the shell's variables that a project's processes get."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dagster._cli import utils

from bonseyes_dagster.local.environment import chosen_environ, read_env_file
from bonseyes_dagster.orchestration.env_file import leave_settings_alone
from bonseyes_dagster.orchestration.instance import create_storage, write_instance


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


def test_the_shell_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Compose has it; an empty value in the shell is a value."""
    (tmp_path / ".env").write_text("BONSEYES_PORT=1\nBONSEYES_URL=http://file\nBONSEYES_INBOX=/file\nBARE\n")
    for name in ("BONSEYES_INBOX", "BARE"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("BONSEYES_PORT", "2")
    monkeypatch.setenv("BONSEYES_URL", "")
    read_env_file(tmp_path)
    assert [os.environ.get(f"BONSEYES_{name}") for name in ("PORT", "URL", "INBOX")] == ["2", "", "/file"]
    assert "BARE" not in os.environ


def test_dagster_takes_no_setting_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would let the file hide the shell, and hand the token to the definitions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(utils, "get_env_var_dict", utils.get_env_var_dict)
    (tmp_path / ".env").write_text("BONSEYES_TOKEN=secret\nIN_SHELL=file\nDATABASE=file\n")
    monkeypatch.setenv("IN_SHELL", "shell")
    monkeypatch.delenv("BONSEYES_TOKEN", raising=False)
    write_instance(tmp_path / "home")
    create_storage(tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    leave_settings_alone()
    with utils.get_instance_for_cli():
        assert (os.environ["DATABASE"], os.environ["IN_SHELL"]) == ("file", "shell")
        assert "BONSEYES_TOKEN" not in os.environ
