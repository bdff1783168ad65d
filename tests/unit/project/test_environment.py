"""The environment variables of the shell that a project's processes get."""

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
def test_secrets_of_the_shell_are_not_passed_on(name: str) -> None:
    """Only listed variables are passed on."""
    assert chosen_environ({name: "x", "PATH": "/bin"}, ()) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "name", ["HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "REQUESTS_CA_BUNDLE", "BONSEYES_THREADS"]
)
def test_variables_that_programs_need_are_passed_on(name: str) -> None:
    """They are listed by name, or by a prefix."""
    assert chosen_environ({name: "x"}, ()) == {name: "x"}


def test_pass_env_adds_variables() -> None:
    """It takes names and prefixes; a name without `*` is not a prefix."""
    environ = {"WANDB_API_KEY": "a", "WANDB_API_KEY_2": "b", "DB_URL": "c", "DB_USER": "d"}
    assert chosen_environ(environ, ("WANDB_API_KEY", "DB_*")) == {"WANDB_API_KEY": "a", "DB_URL": "c", "DB_USER": "d"}


@pytest.mark.parametrize("name", ["UWSGI_INI", "http_proxy", "HTTPS_PROXY", "no_proxy", "BONSEYES_TOKEN"])
def test_pass_env_cannot_add_forbidden_variables(name: str) -> None:
    """Even a pattern that matches them does not add them."""
    assert chosen_environ({name: "x"}, (f"{name[0]}*",)) == {}


def test_shell_takes_precedence_over_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose does the same; an empty value in the shell counts as a value."""
    (tmp_path / ".env").write_text("BONSEYES_PORT=1\nBONSEYES_URL=http://file\nBONSEYES_INBOX=/file\nBARE\n")
    for name in ("BONSEYES_INBOX", "BARE"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("BONSEYES_PORT", "2")
    monkeypatch.setenv("BONSEYES_URL", "")
    read_env_file(tmp_path)
    assert [os.environ.get(f"BONSEYES_{name}") for name in ("PORT", "URL", "INBOX")] == ["2", "", "/file"]
    assert "BARE" not in os.environ


def test_unreadable_env_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    """The user must not get a traceback."""
    file = tmp_path / ".env"
    file.write_bytes(b"BONSEYES_PORT=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        read_env_file(tmp_path)
    file.unlink()
    file.symlink_to("/proc/self/mem")  # even root cannot read this file from its beginning
    with pytest.raises(SettingsError, match=r"\.env cannot be read: Input/output error"):
        read_env_file(tmp_path)


def test_demo_reads_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token in the file must protect the demo, too."""
    (tmp_path / "definitions.py").touch()
    (tmp_path / ".env").write_text("BONSEYES_PORT=no\n")
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "demo" / "__main__.py"))
    monkeypatch.setenv("BONSEYES_PORT", "to be restored")
    monkeypatch.delenv("BONSEYES_PORT")
    assert demo.main([]) == 2
    assert "BONSEYES_PORT='no'" in capsys.readouterr().out


def test_tool_run_gets_allowed_hosts_but_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own port needs the allowed hosts, also from the `.env` file."""
    tool = tmp_path / "containers" / "load"
    tool.mkdir(parents=True)
    (tool / "tool.yml").write_text("{name: load, description: d, entry_point: 'load:create', output_type: x}")
    (tmp_path / ".env").write_text("BONSEYES_ALLOWED_HOSTS=tunnel\nBONSEYES_TOKEN=secret\n")
    for name in ("BONSEYES_ALLOWED_HOSTS", "BONSEYES_TOKEN"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUD_KEY", "secret")
    seen: dict[str, str] = {}
    monkeypatch.setattr(commands, "_replace_process", lambda _, environ: seen.update(environ))
    with pytest.raises(SystemExit):
        main(["tool", "run", str(tool)])
    assert (seen["BONSEYES_TOOL"], seen["BONSEYES_ALLOWED_HOSTS"]) == (str(tool), "tunnel")
    assert "secret" not in seen.values()


def test_dagster_reads_no_setting_from_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the file would take precedence over the shell, and the definitions would get the token."""
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
