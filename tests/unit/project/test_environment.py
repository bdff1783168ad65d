"""The choice of the shell's variables that a project's processes get."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dagster._cli import utils

from bonseyes_dagster.client.command import main
from bonseyes_dagster.commands import project as commands
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.execution.servers.env_file import leave_settings_alone
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.storage.migration import bring_up_to_date
from bonseyes_dagster.project.environment import chosen_environ, read_env_file
from demo import __main__ as demo


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


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """In a sentence, as for Compose."""
    file = tmp_path / ".env"
    file.write_bytes(b"BONSEYES_PORT=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        read_env_file(tmp_path)
    file.unlink()
    file.symlink_to("/proc/self/mem")  # a file that even root cannot read from its beginning
    with pytest.raises(SettingsError, match=r"\.env cannot be read: Input/output error"):
        read_env_file(tmp_path)


def test_the_demo_takes_the_file_as_up_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that stands there alone must protect the demo, too."""
    (tmp_path / "definitions.py").touch()
    (tmp_path / ".env").write_text("BONSEYES_PORT=no\n")
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "demo" / "__main__.py"))
    monkeypatch.setenv("BONSEYES_PORT", "to be restored")
    monkeypatch.delenv("BONSEYES_PORT")
    assert demo.main([]) == 2
    assert "BONSEYES_PORT='no'" in capsys.readouterr().out


def test_a_tool_that_runs_alone_gets_what_its_port_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that it may answer to, from the file as well, and no secret."""
    tool = tmp_path / "containers" / "load"
    tool.mkdir(parents=True)
    (tool / "tool.yml").write_text("{name: load, description: d, entry_point: 'load:create', output_type: x}")
    (tmp_path / ".env").write_text("BONSEYES_ALLOWED_HOSTS=tunnel\nBONSEYES_TOKEN=secret\n")
    for name in ("BONSEYES_ALLOWED_HOSTS", "BONSEYES_TOKEN"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUD_KEY", "secret")
    seen: dict[str, str] = {}
    monkeypatch.setattr(commands, "_become", lambda _, environ: seen.update(environ))
    with pytest.raises(SystemExit):
        main(["tool", "run", str(tool)])
    assert (seen["BONSEYES_TOOL"], seen["BONSEYES_ALLOWED_HOSTS"]) == (str(tool), "tunnel")
    assert "secret" not in seen.values()


def test_dagster_takes_no_setting_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would let the file hide the shell, and hand the token to the definitions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(utils, "get_env_var_dict", utils.get_env_var_dict)
    (tmp_path / ".env").write_text("BONSEYES_TOKEN=secret\nIN_SHELL=file\nDATABASE=file\n")
    monkeypatch.setenv("IN_SHELL", "shell")
    monkeypatch.delenv("BONSEYES_TOKEN", raising=False)
    write_instance(tmp_path / "home")
    bring_up_to_date(tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    leave_settings_alone()
    with utils.get_instance_for_cli():
        assert (os.environ["DATABASE"], os.environ["IN_SHELL"]) == ("file", "shell")
        assert "BONSEYES_TOKEN" not in os.environ
