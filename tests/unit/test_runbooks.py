"""Runbooks name only what exists: every command line in them is read by the very parser that would get it.

Whoever follows one is in a hurry, and a renamed option is found out then. What a command does is another test's: blocks
marked ``run`` are run against the local stack (``tests/e2e/test_runbooks.py``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.session import Session

from countersign.__main__ import _parser

ROOT = Path(__file__).parents[2]
RUNBOOKS = sorted((ROOT / "docs/runbooks").glob("*.md"))
SCREEN = 60  # lines of a large terminal: past that, whoever follows it loses the place
LONGER = {"verify.md"}  # it is read at a desk
# Of the aws command itself, not of an operation.
_OF_THE_CLIENT = {"--region", "--query", "--output", "--profile"}
# Commands of the aws client that are no operations.
_BUILT_IN = {("s3", "sync")}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the info string and text of each fenced block of a shell, without its indent."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(sh[^\n]*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [(info, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)) for indent, info, body in found]


def lines(body: str) -> Iterator[str]:
    """Give each command line: continued ones joined, here-documents left out."""
    plain = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", body, flags=re.DOTALL)
    for line in plain.replace("\\\n", " ").splitlines():
        yield from line.split(" && ")


def calls(page: Path, program: str) -> Iterator[list[str]]:
    """Give the arguments of each call of ``program``: in blocks, and in `code` in the text."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL))
    told = [line for _, body in blocks(page) for line in lines(body)] + [" ".join(one.split()) for one in inline]
    for line in told:
        words = shlex.split(re.sub(r"(^|\s)#.*", "", line))
        if words[:1] == [program] and len(words) > 1:
            yield words[1:]


@pytest.mark.parametrize("page", RUNBOOKS, ids=[page.stem for page in RUNBOOKS])
def test_every_command_of_ours_is_one_that_the_parser_takes(page: Path) -> None:
    """A runbook that names an option of last year's release fails at night."""
    for given in calls(page, "countersign"):
        ours = given[: given.index("--")] if "--" in given else given
        ours = ours[: next((at for at, word in enumerate(ours) if word.startswith((">", "|", "..."))), len(ours))]
        if "--" not in given and len(ours) == 1 and ours[0] in ("reconcile", "evidence", "keys", "config"):
            continue  # the command's name, as a word of a sentence
        parsed = _parser(ours).parse_args(ours)
        assert callable(parsed.run), ours


@pytest.mark.parametrize("page", RUNBOOKS, ids=[page.stem for page in RUNBOOKS])
def test_every_call_of_aws_names_an_operation_and_options_that_it_has(page: Path) -> None:
    """By the service's own model, as botocore has it: what the aws client makes its commands of."""
    for given in calls(page, "aws"):
        service, operation = given[:2]
        if (service, operation) in _BUILT_IN:
            continue
        taken = {"--cli-input-json"} | _OF_THE_CLIENT
        if operation == "wait":
            operation = _waited(service, given[2])
        named = {word for word in given if word.startswith("--")}
        assert named <= taken | _options(service, operation), (page.name, given)


@cache
def _options(service: str, operation: str) -> frozenset[str]:
    model = Session().get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(names[operation]).input_shape
    found: set[str] = set()
    for name, member in (shape.members if shape is not None else {}).items():
        option = f"--{xform_name(name, '-')}"
        found |= {option, option.replace("--", "--no-", 1)} if member.type_name == "boolean" else {option}
    return frozenset(found)


def _waited(service: str, waiter: str) -> str:
    waiters = Session().get_waiter_model(service)
    names = {xform_name(name, "-"): name for name in waiters.waiter_names}
    return str(xform_name(waiters.get_waiter(names[waiter]).operation, "-"))


@pytest.mark.parametrize("page", RUNBOOKS, ids=[page.stem for page in RUNBOOKS])
def test_a_runbook_is_listed_and_one_screen_long(page: Path) -> None:
    """One that is in no list is not found, and one that must be scrolled is not followed."""
    assert page.name in LONGER or len(page.read_text(encoding="utf-8").splitlines()) <= SCREEN
    if page.name != "README.md":
        assert f"]({page.name})" in (ROOT / "docs/runbooks/README.md").read_text(encoding="utf-8")


def test_what_is_said_to_be_run_is_marked_and_the_other_way_round() -> None:
    """The mark in the fence is what runs it; the words beside it are what a reader trusts."""
    for page in RUNBOOKS:
        marked = sum(info == "sh run" for info, _ in blocks(page))
        said = page.read_text(encoding="utf-8").count("*(run by the tests)*")
        assert said == marked + (page.name == "README.md"), page.name
