"""The base install is what a pipeline needs: the standard library, and little of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Blocks every import that is neither the standard library's nor ours, as an install without extras would.
_BARE = """
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        head = name.partition('.')[0]
        if head not in sys.stdlib_module_names and head not in ('countersign', 'chalicelib'):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
from countersign.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
ROOT = Path(__file__).parents[3]


def bare(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _BARE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root, env={}, check=False)


def test_what_a_pipeline_runs_imports_no_third_party_module() -> None:
    """A pipeline's image has Python and nothing else of ours: it must reach the point where the address is missing."""
    ended = bare("exec", "orders-prod", "--", "/bin/true")
    assert (ended.returncode, "COUNTERSIGN_API" in ended.stderr) == (64, True), ended.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("review", "--txn", "01j9z3k4m5n6p7q8r9s0t1v2w4"), "audit"),
        (("config", "check", "."), "audit"),
        (("dev",), "dev"),
    ],
)
def test_a_missing_extra_is_one_clear_line(arguments: tuple[str, ...], extra: str) -> None:
    """In place of a traceback: which extra to install."""
    ended = bare(*arguments)
    assert ended.returncode == 64
    assert f"pip install 'countersign[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_it_starts_fast() -> None:
    """`exec` stands before every command of a pipeline. CPU time of the imports, since the machine is shared; the best
    of five, since a first one fills caches."""
    code = "import time; a = time.process_time(); import countersign.__main__; print(time.process_time() - a)"
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout)
        for _ in range(5)
    ]
    assert min(took) < 0.1, took


def test_the_local_stack_says_that_it_needs_a_checkout(tmp_path: Path) -> None:
    """No wheel holds the roles' policies or the emulator: an install has to say so, and what to do."""
    for package in ("countersign", "chalicelib"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    ended = bare("dev", root=tmp_path)
    assert (ended.returncode, "make dev" in ended.stderr) == (64, True), ended.stderr
    assert len(ended.stderr.splitlines()) == 2
