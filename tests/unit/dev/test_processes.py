"""Children: their output, their end, and that none outlives its parent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chalicelib.domain.errors import TargetUnavailable
from dev.processes import Child, free_port, listening
from dev.settings import ROOT, child_environment

FOREVER = [sys.executable, "-c", "import time; time.sleep(600)"]
# A parent that starts a child, says its pid, and waits.
PARENT = """
import sys, threading
from pathlib import Path
from dev.processes import Child
from dev.settings import child_environment
child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], environment=child_environment(),
              log=Path(sys.argv[1]))
print(child.pid, flush=True)
threading.Event().wait()
"""


def _gone(pid: int) -> bool:
    """Wait until the process is no more (a zombie that init has yet to reap counts as gone)."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], 10)[0])
    finally:
        os.close(watched)


def test_a_killed_parent_leaves_no_child_behind(tmp_path: Path) -> None:
    """`kill -9` on the stack gives it no chance to end anything itself."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        env=child_environment(),
        cwd=ROOT,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    assert _gone(pid)


def test_stop_ends_the_whole_group_also_what_ignores_the_signal(tmp_path: Path) -> None:
    """A server's workers are in its group; one that ignores SIGTERM is killed after its grace."""
    script = (
        "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(below.pid, flush=True); time.sleep(600)"
    )
    child = Child("stubborn", [sys.executable, "-c", script], environment={}, log=tmp_path / "log", pipes=True)
    below = int(child.stdout.readline())
    child.stop(grace_s=0.1)
    assert not child.alive()
    assert _gone(below)
    child.stop()


def test_a_child_that_dies_while_awaited_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    """The person who started the stack sees why, without looking for a file."""
    child = Child(
        "broken", [sys.executable, "-c", "raise SystemExit('no such table')"], environment={}, log=tmp_path / "l"
    )
    with pytest.raises(TargetUnavailable, match="no such table"):
        child.wait_until(lambda: False, within_s=10)
    child.stop()


def test_a_child_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    """Bounded: a hanging part must not hang the start."""
    child = Child("slow", FOREVER, environment={}, log=tmp_path / "log")
    with pytest.raises(TargetUnavailable, match="not ready"):
        child.wait_until(lambda: False, within_s=0.2)
    child.stop()


def test_nothing_of_the_callers_own_cloud_or_database_reaches_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's AWS keys in a process that talks to an emulator are one wrong endpoint away from production."""
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "PGPASSWORD", "SLACK_TOKEN"):
        monkeypatch.setenv(name, "mine")
    assert "mine" not in child_environment().values()


def test_a_free_port_is_not_listened_on() -> None:
    """What the stack's parts are told to listen on."""
    assert not listening(free_port())
