"""All descendants of a process are ended, in any session, even if they resist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bonseyes_dagster.tool.worker import descendants

PREPARED = """
import os, signal, subprocess, sys, time
from bonseyes_dagster.tool.worker.descendants import end_below, end_descendants, children_of
from bonseyes_dagster.system.prctl import adopt_orphans

def double_fork(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
        os._exit(0)

def rest():
    time.sleep(300)

adopt_orphans()
"""
HOPPER = """
#include <sys/wait.h>
#include <unistd.h>
/* Forks and exits, so that it lives on as its own child, again and again. */
int main(void) { for (;;) { if (fork() > 0) _exit(0); usleep(50); } }
"""


def run(code: str, *arguments: str) -> str:
    """Run `code` in a process that adopts orphans; return its output."""
    command = [sys.executable, "-c", PREPARED + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_descendants_in_any_session_and_depth_are_ended() -> None:
    """Orphans are counted, too, and no zombie is left."""
    output = run("""
for _ in range(3):
    double_fork(rest)
subprocess.Popen(["sh", "-c", "sleep 300 & wait"], start_new_session=True)
stopped = subprocess.Popen(["sleep", "300"])
stopped.send_signal(signal.SIGSTOP)
while len(children_of(os.getpid())) < 5 or not any(map(children_of, children_of(os.getpid()))):
    time.sleep(0.01)
time.sleep(0.1)
ending = end_descendants()
print(len(ending.ended), sorted(set(ending.ended.values())), ending.survivors, children_of(os.getpid()))
""")
    assert output.endswith("{} []")
    assert int(output.split()[0]) >= 6
    assert "sleep" in output


def test_ended_processes_are_reaped_but_not_counted() -> None:
    """A zombie did not outlive the tool."""
    output = run("""
subprocess.Popen(["true"])
double_fork(lambda: os._exit(0))
time.sleep(0.5)
print(end_descendants().ended, children_of(os.getpid()))
""")
    assert output == "{} []"


def test_helpers_and_their_descendants_stay() -> None:
    """The tool's module started them at its import, so they belong to the container."""
    output = run("""
helper = subprocess.Popen(["sh", "-c", "sleep 300 & wait"])
while not children_of(helper.pid):
    time.sleep(0.01)
double_fork(rest)
ending = end_descendants([helper.pid])
print(len(ending.ended) >= 1, children_of(os.getpid()) == [helper.pid], len(children_of(helper.pid)))
end_descendants()
""")
    assert output == "True True 1"


def test_wanted_process_below_a_helper_is_ended() -> None:
    """A fork server of the container may have forked it for the artifact."""
    output = run("""
helper = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 301 & wait"])
while len(children_of(helper.pid)) < 2:
    time.sleep(0.01)
first, second = children_of(helper.pid)
ending = end_below([helper.pid], lambda pid: pid == first)
print(list(ending.ended) == [first], os.path.exists(f"/proc/{second}"), helper.poll())
end_descendants()
""")
    assert output == "True True None"


def test_processes_that_restart_each_other_are_ended() -> None:
    """All are stopped before the first one is killed."""
    output = run("""
def guard(depth=0):
    while True:
        ward = os.fork()
        if ward == 0:
            os.setsid()
            if depth == 3:
                rest()
            guard(depth + 1)
        os.waitpid(ward, 0)

double_fork(guard)
time.sleep(0.5)
ending = end_descendants()
print(len(ending.ended) >= 5, ending.survivors, children_of(os.getpid()))
""")
    assert output == "True {} []"


@pytest.mark.skipif(shutil.which("cc") is None, reason="it needs a C compiler")
@pytest.mark.parametrize("has_helper", [False, True])
def test_process_that_keeps_forking_and_exiting_is_ended(has_helper: bool, tmp_path: Path) -> None:
    """It forks as fast as it can, so no list of processes shows it for long."""
    source = tmp_path / "hopper.c"
    source.write_text(HOPPER)
    subprocess.run(["cc", "-o", tmp_path / "hopper", source], check=True)
    output = run(
        """
keep = [subprocess.Popen(["sleep", "300"]).pid] if sys.argv[2] else []
subprocess.Popen([sys.argv[1]], start_new_session=True)
time.sleep(0.2)
ending = end_descendants(keep)
time.sleep(0.2)
print(ending.survivors, len(children_of(os.getpid())) - len(keep))
end_descendants()
""",
        str(tmp_path / "hopper"),
        "yes" if has_helper else "",
    )
    assert output == "{} 0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_process_of_another_user_is_named() -> None:
    """It cannot be killed, and the wait for it must end all the same."""
    output = run("""
subprocess.Popen(["sleep", "5"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
os.setuid(65534)
ending = end_descendants(within_s=0.5)
print(ending.reason())
""")
    assert "(sleep) belongs to another user" in output
    assert output.startswith("The tool left processes behind that do not end")


def test_children_are_found_without_the_kernels_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every kernel has these lists."""
    child = subprocess.Popen(["sleep", "300"])
    try:
        listed = descendants.children_of(os.getpid())
        monkeypatch.setattr(descendants, "_lists_children", lambda: False)
        assert child.pid in listed
        assert sorted(descendants.children_of(os.getpid())) == sorted(listed)
        assert descendants.children_of(2**22 + 1) == []
    finally:
        child.kill()
        child.wait()
