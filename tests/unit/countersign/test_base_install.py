"""The base install is what a pipeline needs: the standard library, and `cryptography` for the caller's key."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

# Blocks every import that is neither the standard library's, ours, nor of the packages named first, as an install
# without extras would. cryptography's own dependency is cffi, which is pycparser's.
_BARE = """
import sys
allowed = {*sys.stdlib_module_names, 'countersign', 'chalicelib', *filter(None, sys.argv.pop(1).split(','))}
class Bare:
    def find_spec(self, name, path=None, target=None):
        head = name.partition('.')[0]
        if head not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
from countersign.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
ROOT = Path(__file__).parents[3]


CRYPTOGRAPHY = ("cryptography", "cffi", "_cffi_backend", "pycparser")


def bare(
    *arguments: str, root: Path = ROOT, packages: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _BARE, ",".join(packages), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root, env=env or {}, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("exec", "orders-prod", "--", "/bin/true"),
        ("agent", "--name", "a", "--", "/bin/true"),
        ("delegate", "--name", "a", "--key", "x" * 43),
        ("key",),
        ("revoke", "01j9z3k4m5n6p7q8r9s0t1v2w4", "--why", "x"),
        ("login",),
        ("chain", "show", "01j9z3k4m5n6p7q8r9s0t1v2w4"),
        ("chain", "verify", "01j9z3k4m5n6p7q8r9s0t1v2w4"),
    ],
)
def test_what_a_pipeline_runs_imports_no_third_party_module(arguments: tuple[str, ...]) -> None:
    """A pipeline's image has Python and little else: without even the one dependency a command must start, and reach
    the point where the address is missing."""
    ended = bare(*arguments)
    assert (ended.returncode, "COUNTERSIGN_API" in ended.stderr) == (64, True), ended.stderr


def test_the_one_dependency_is_for_the_key(tmp_path: Path) -> None:
    """With `cryptography` and nothing else a key is made, and a token asked for."""
    service = {"COUNTERSIGN_API": "http://127.0.0.1:1", "COUNTERSIGN_IDENTITY": f"{tmp_path}/identity.json"}
    made = bare("key", packages=CRYPTOGRAPHY, env=service)
    assert (made.returncode, len(made.stdout.strip())) == (0, 43), made.stderr
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
    asked = bare("targets", packages=CRYPTOGRAPHY, env=service | {"COUNTERSIGN_ID_TOKEN": token})
    assert (asked.returncode, "cannot be reached" in asked.stderr) == (69, True), asked.stderr


def test_the_base_install_declares_that_one_dependency() -> None:
    """What the pipeline's `pip install countersign` brings is a promise of the documentation."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [requirement.partition(">")[0] for requirement in declared] == ["cryptography"]


def test_help_needs_no_dependency_and_names_every_command() -> None:
    """The first thing that a new user types; no module is imported for it that is not needed."""
    code = "import sys; from countersign.__main__ import main; main(['--help']); print('cryptography' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.rstrip().endswith("False")
    for command in ("exec", "agent", "delegate", "key", "revoke", "login", "chain", "review"):
        assert f"\n    {command} " in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("review", "--txn", "01j9z3k4m5n6p7q8r9s0t1v2w4"), "audit"),
        (("verify", "ses_01j9z3k4m5n6p7q8r9s0t1v2w4"), "audit"),
        (("evidence", "ses_01j9z3k4m5n6p7q8r9s0t1v2w4", "/nowhere"), "audit"),
        (("replay", "ses_01j9z3k4m5n6p7q8r9s0t1v2w4"), "audit"),
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
