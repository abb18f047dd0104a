"""The checks themselves: each rule is broken once in a copy of the tree, and its check must fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

INTRUDER = {
    "Statement": [
        {"Effect": "Allow", "Action": ["dynamodb:PutItem"], "Resource": "arn:aws:dynamodb:r:a:table/${PREFIX}-answers"}
    ]
}

NAMED = {"Statement": [{"Sid": "LookAround", "Effect": "Allow", "Action": ["s3:ListAllMyBuckets"], "Resource": "*"}]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the checks read: no virtual environment, no history."""
    copy = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("__pycache__", "out", "deployments")
    for folder in ("chalicelib", "broker", "countersign", "dev", "docs", "tests", ".ci", ".chalice", "infra"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
    for file in ("pyproject.toml", "Makefile", "LICENSE", *(page.name for page in ROOT.glob("*.md"))):
        shutil.copy(ROOT / file, copy / file)
    shutil.copytree(ROOT / "integrations", copy / "integrations")
    return copy


def planted(file: Path, text: str) -> str:
    """Append ``text`` to ``file`` and return what was there."""
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(before + text, encoding="utf-8")
    return before


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=100, check=False)


def imports(tree: Path) -> subprocess.CompletedProcess[str]:
    return run(tree, str(BIN / "lint-imports"), "--no-cache")


def docs(tree: Path) -> subprocess.CompletedProcess[str]:
    return run(tree, sys.executable, ".ci/docs.py")


# One violation for each contract of pyproject.toml: what it forbids, in the file where it would hurt.
PLANTED = {
    "chalicelib: edges, services, knowledge, domain": ("chalicelib/identity/jws.py", "import chalicelib.services.mint"),
    "only composition roots import the store, and the store knows the domain alone": (
        "chalicelib/services/mint.py",
        "import chalicelib.store.tables",
    ),
    "the store imports the domain alone": ("chalicelib/store/tables.py", "import chalicelib.identity.jws"),
    "the domain is the standard library and itself": ("chalicelib/domain/clock.py", "import boto3"),
    "broker: main, listeners, engines, connection and wire, the one flow": (
        "broker/inspection.py",
        "import broker.engines.flow",
    ),
    "wire imports nothing of ours": ("broker/wire/__init__.py", "import chalicelib.domain.clock"),
    "broker and countersign never import the edges": ("countersign/api.py", "import chalicelib.api.edge"),
    "chalicelib never imports broker, countersign or dev": ("chalicelib/policy/engine.py", "import broker.masking"),
    "one door per library: jwt and fido2 in identity, cedarpy in policy": ("broker/admission.py", "import jwt"),
    "one door per library: boto3 and pynamodb in store, slack_bolt in slack, chalice in api": (
        "chalicelib/services/mint.py",
        "import slack_bolt",
    ),
    "one door per library: paramiko in engines/ssh": ("broker/listeners/tcp.py", "import paramiko"),
    "nothing imports the deployment": ("chalicelib/services/mint.py", "import infra.deploy.stage"),
    "the deployment knows no edge, no broker and no local stack, and has one door to boto3": (
        "infra/deploy/stage.py",
        "import boto3",
    ),
    "engines do not know each other": ("broker/engines/ssh/keys.py", "import broker.engines.postgres.refusals"),
}


def test_every_import_contract_has_a_planted_violation(tree: Path) -> None:
    """A contract that nothing was planted against may hold because it looks at nothing."""
    contracts = tomllib.loads((tree / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == set(PLANTED)


@pytest.mark.parametrize("contract", PLANTED)
def test_a_planted_import_breaks_its_contract(tree: Path, contract: str) -> None:
    """Who may import whom is the architecture; each rule of it must be able to fail."""
    name, line = PLANTED[contract]
    before = planted(tree / name, f"\n{line}  # planted\n")
    try:
        ended = imports(tree)
    finally:
        (tree / name).write_text(before)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert f"{contract} BROKEN" in " ".join(ended.stdout.split())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("os.environ", "import os\n\nHOME = os.environ['HOME']\n"),
        ("datetime.datetime.now", "import datetime\n\nNOW = datetime.datetime.now(datetime.UTC)\n"),
        ("time.time", "import time\n\nNOW = time.time()\n"),
        ("asyncio.create_task", "import asyncio\n\nasyncio.create_task(None)\n"),
        ("threading.Thread", "import threading\n\nthreading.Thread()\n"),
        ("unittest.mock", "from unittest import mock\n\nmock.patch('x')\n"),
        ("print", "print('x')\n"),
        ("relative import", "from . import request\n"),
    ],
)
def test_a_banned_call_fails(tree: Path, name: str, line: str) -> None:
    """Each has one owner, so that tests can pass a clock, an environment, a loop: a second one is found at once."""
    file = tree / "chalicelib/services/planted.py"
    file.write_text(f'"""Planted."""\n\n{line}')
    try:
        ended = run(tree, str(BIN / "ruff"), "check", "--no-cache", "chalicelib/services/planted.py")
    finally:
        file.unlink()
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "TID25" in ended.stdout or "T201" in ended.stdout, name


def test_what_the_lambdas_root_may_not_import_fails(tree: Path) -> None:
    """import-linter cannot read app.py, which is no package: ruff keeps its rule."""
    file = tree / "app.py"
    file.write_text("import broker\n")
    try:
        ended = run(tree, str(BIN / "ruff"), "check", "--no-cache", "--config", ".ci/app-imports.toml", "app.py")
    finally:
        file.unlink()
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "not in the Lambda's zip" in ended.stdout


@pytest.mark.parametrize(
    ("page", "text", "told"),
    [
        ("docs/architecture.md", "\n[x](no-such-page.md)\n", "leads nowhere"),
        ("docs/architecture.md", "\n[x](glossary.md#no-such-heading)\n", "no such heading"),
        ("README.md", "\n![x](docs/images/no-such-picture.png)\n", "leads nowhere"),
        ("docs/glossary.md", "| **Frobnication** | a word of nobody | nowhere |\n", "Frobnication"),
        ("docs/glossary.md", "| **Hop** | x | `chalicelib/domain/gone.py` |\n", "no chalicelib/domain/gone.py"),
        ("docs/glossary.md", "| **Hop** | x | `chalicelib/domain/ask.py` |\n", "Hop is not defined where"),
        ("docs/errors.md", "\n| `no_such_code` | x | x |\n", "no_such_code"),
        ("chalicelib/domain/errors.py", "\nclass X(AccessError):\n    code = 'unlisted'\n", "unlisted is not listed"),
        ("docs/threat_model.md", "\n`test_that_nobody_wrote`\n", "test_that_nobody_wrote"),
        ("docs/adr/0099-planted.md", "# 0099\n", "no section"),
        ("CONTRIBUTING.md", "\n`make believe`\n", "believe"),
        ("infra/policies/intruder.json", json.dumps(INTRUDER), "decide, intruder may write answers"),
        ("infra/policies/intruder.json", json.dumps(INTRUDER), "intruder.json: a statement has no Sid"),
        ("infra/policies/named.json", json.dumps(NAMED), "nothing says why LookAround is there"),
        ("docs/permissions.md", "| `OwnLog` | x | x | x |\n", "it is not what the policies say"),
        ("docs/openapi.json", " ", "docs/openapi.json is not what the endpoints declare"),
        (
            "chalicelib/api/public.py",
            "\nobject.__setattr__(HEALTH, 'summary', 'x')\n",
            "not what the endpoints declare",
        ),
    ],
)
def test_documentation_that_lies_fails(tree: Path, page: str, text: str, told: str) -> None:
    """A link, a word, a code, a test's name or a command that is not there is found."""
    file = tree / page
    new = not file.exists()
    before = planted(file, text)
    try:
        ended = docs(tree)
    finally:
        if new:
            file.unlink()
        else:
            file.write_text(before)
    assert ended.returncode == 1
    assert told in ended.stderr


def test_the_documentation_is_true_now(tree: Path) -> None:
    """The check that the others break passes on the tree as it is; else their failures would prove nothing."""
    ended = docs(tree)
    assert (ended.returncode, ended.stderr) == (0, "")
