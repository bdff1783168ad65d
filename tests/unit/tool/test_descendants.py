"""All that a process has started ends, in whatever session it is and however it resists."""

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
/* Lives on as its own child, again and again. */
int main(void) { for (;;) { if (fork() > 0) _exit(0); usleep(50); } }
"""


def run(code: str, *arguments: str) -> str:
    """Run `code` in a process that adopts orphans; return what it prints."""
    command = [sys.executable, "-c", PREPARED + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_processes_in_any_session_and_at_any_depth_end() -> None:
    """They are counted, whether they had a parent or not, and nothing is left to reap."""
    said = run("""
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
    assert said.endswith("{} []")
    assert int(said.split()[0]) >= 6
    assert "sleep" in said


def test_what_has_ended_already_is_reaped_and_not_counted() -> None:
    """A zombie did not run on."""
    said = run("""
subprocess.Popen(["true"])
double_fork(lambda: os._exit(0))
time.sleep(0.5)
print(end_descendants().ended, children_of(os.getpid()))
""")
    assert said == "{} []"


def test_helpers_stay_with_all_below_them() -> None:
    """What the tool's module started when it was loaded is the container's."""
    said = run("""
helper = subprocess.Popen(["sh", "-c", "sleep 300 & wait"])
while not children_of(helper.pid):
    time.sleep(0.01)
double_fork(rest)
ending = end_descendants([helper.pid])
print(len(ending.ended) >= 1, children_of(os.getpid()) == [helper.pid], len(children_of(helper.pid)))
end_descendants()
""")
    assert said == "True True 1"


def test_a_process_below_a_helper_ends_when_it_is_wanted() -> None:
    """A fork server that is the container's may have forked for the artifact."""
    said = run("""
helper = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 301 & wait"])
while len(children_of(helper.pid)) < 2:
    time.sleep(0.01)
first, second = children_of(helper.pid)
ending = end_below([helper.pid], lambda pid: pid == first)
print(list(ending.ended) == [first], os.path.exists(f"/proc/{second}"), helper.poll())
end_descendants()
""")
    assert said == "True True None"


def test_guardians_that_start_each_other_again_end() -> None:
    """All are stopped before one of them sees another die."""
    said = run("""
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
    assert said == "True {} []"


@pytest.mark.skipif(shutil.which("cc") is None, reason="it needs a C compiler")
@pytest.mark.parametrize("has_helper", [False, True])
def test_a_process_that_lives_on_as_its_child_ends(has_helper: bool, tmp_path: Path) -> None:
    """It forks as fast as it can, and no list of processes ever shows it for long."""
    source = tmp_path / "hopper.c"
    source.write_text(HOPPER)
    subprocess.run(["cc", "-o", tmp_path / "hopper", source], check=True)
    said = run(
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
    assert said == "{} 0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_process_of_another_user_is_named() -> None:
    """It cannot be killed; what waits for it ends all the same."""
    said = run("""
subprocess.Popen(["sleep", "5"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
os.setuid(65534)
ending = end_descendants(within_s=0.5)
print(ending.reason())
""")
    assert "(sleep) belongs to another user" in said
    assert said.startswith("The tool left processes behind that do not end")


def test_without_lists_of_children_all_processes_are_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every kernel has them."""
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
