"""``countersign dev`` as a command: the ready file, signals, and a bundle that does not load. Starts no stack."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from dev.settings import DEMO_BUNDLE
from dev.stack import Stopping, main, write_ready_file


def test_the_ready_file_appears_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds the demo target's password, and a waiting test reads it the moment that it exists."""
    path = tmp_path / "ready.json"
    path.write_text("of another run")
    write_ready_file(path, {"api": "http://127.0.0.1:1"})
    assert json.loads(path.read_text()) == {"api": "http://127.0.0.1:1"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_and_the_second_does_not_break_the_end_off(number: signal.Signals) -> None:
    """An impatient second Ctrl-C must not leave half of the stack running."""
    stopped = threading.Event()
    before = signal.getsignal(number)
    with Stopping(stopped):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert stopped.is_set()
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_bundle_that_does_not_load_is_told_by_file_and_line_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The person corrects the file; there is no stack to end first."""
    folder = shutil.copytree(DEMO_BUNDLE, tmp_path / "bundle")
    (folder / "targets.yaml").write_text("targets:\n  orders-prod: 1\n")
    before = set(Path(tempfile.gettempdir()).glob("countersign-*"))
    assert main(["--config", str(folder)]) == 1
    assert "targets.yaml:2" in capsys.readouterr().err
    assert set(Path(tempfile.gettempdir()).glob("countersign-*")) <= before


def test_a_ready_file_in_no_folder_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after the half minute in which the caller waited for it."""
    with pytest.raises(SystemExit) as ended:
        main(["--ready-file", str(tmp_path / "missing" / "ready.json")])
    assert ended.value.code == 2
    assert "missing" in capsys.readouterr().err
