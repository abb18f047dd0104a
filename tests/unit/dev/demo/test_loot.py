"""What the demo's thief takes: from environments, folders and identity files, as they lie there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dev.demo.loot import gather
from dev.demo.places import Place
from dev.settings import SystemClock


def test_everything_that_lies_around_is_found_once(tmp_path: Path) -> None:
    """A claim that nothing helps the thief is worth what the thief has."""
    folder = tmp_path / "tool"
    (folder / "tmp" / "countersign-x").mkdir(parents=True)
    for name in ("key", "key-cert.pub"):
        (folder / "tmp" / "countersign-x" / name).write_text(name)
    (folder / "identity.json").write_text(json.dumps({"token": "at-1", "key": "pem"}))
    (folder / "broken.json").write_text("{")
    place = Place(name="tool", folder=folder, environment={}, clock=SystemClock())
    held = {"HOME": str(folder), "PGPASSWORD": "s3cret"}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=held, stdin=subprocess.PIPE) as process:
        found = gather([place], ["cst_1"], [("the job's token", "jwt")], tmp_path / "loot")
        process.communicate(b"\n")
    assert sorted(text for _, text in found.words) == ["at-1", "cst_1", "jwt", "s3cret"]
    (key,) = found.keys
    assert key.read_text() == "key"
    assert key.with_name(f"{key.name}-cert.pub").read_text() == "key-cert.pub"


def test_a_process_of_another_place_is_not_searched(tmp_path: Path) -> None:
    """Else a PGPASSWORD of the person's own shell would be tried, and shown in a recording."""
    place = Place(name="tool", folder=tmp_path / "tool", environment={}, clock=SystemClock())
    held = {"HOME": str(tmp_path / "tools"), "PGPASSWORD": "theirs"}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=held, stdin=subprocess.PIPE) as process:
        found = gather([place], [], [], tmp_path / "loot")
        process.communicate(b"\n")
    assert found.words == ()
