"""`countersign config check` on real bundles."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from countersign.__main__ import main

DEMO = Path(__file__).parents[2] / "dev/demo/bundle"


def check(directory: Path, *options: str) -> tuple[int, str]:
    out = io.StringIO()
    code = main(["config", "check", str(directory), *options], {}, out=out, err=io.StringIO())
    return code, out.getvalue()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "bundle"))


def test_the_demos_bundle_is_valid(bundle: Path) -> None:
    """What the README shows must load; its digest is what an activation and every verdict name."""
    code, out = check(bundle)
    assert (code, out.startswith("valid")) == (0, True)
    told = json.loads(check(bundle, "--json")[1])
    assert told["valid"] is True
    assert told["digest"] in out


def test_each_problem_names_file_line_and_remedy(bundle: Path) -> None:
    """Whoever writes a bundle corrects all of it in one go, and finds each place without searching."""
    targets = bundle / "targets.yaml"
    lines = targets.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if line.strip().startswith("port:"))
    lines[number - 1] = lines[number - 1].replace("port: 5432", "port: many")
    targets.write_text("\n".join(lines) + "\n")
    policy = bundle / "policies/9-new.cedar"
    policy.write_text('@id("x") permit (principal, action == Action::"no:such", resource);\n')
    code, out = check(bundle)
    assert code == 65
    assert f"targets.yaml:{number}: " in out
    assert "policies/9-new.cedar:1: " in out
    told = json.loads(check(bundle, "--json")[1])
    assert told["valid"] is False
    assert all(problem["file"] and problem["remedy"] for problem in told["problems"])
    assert {problem["file"] for problem in told["problems"]} == {"targets.yaml", "policies/9-new.cedar"}


def test_a_bundle_with_escapes_in_it_does_not_run_in_the_terminal(bundle: Path) -> None:
    """Attack: somebody checks a bundle from a pull request, and a name in it is an escape sequence."""
    (bundle / "targets.yaml").write_text('targets:\n  "\\e]0;pwned\\a": 1\n')
    code, out = check(bundle)
    assert code == 65
    assert not set(out) & set("\x1b\x07")


def test_a_folder_that_is_not_there() -> None:
    """A typing error is said in one line."""
    code, out = check(Path("/no/such/folder"))
    assert code == 65
    assert "/no/such/folder" in out
