"""The CI templates: what they call is there, by the names and options that they use."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from countersign.__main__ import _parser, _split

FOLDER = Path(__file__).parents[3] / "integrations"
TEMPLATES = sorted(FOLDER.rglob("*.yml"))


def command_lines(value: Any) -> Iterator[list[str]]:
    """Give every command line of ours in a template: a script's line, or a container's arguments."""
    if isinstance(value, dict):
        for item in value.values():
            yield from command_lines(item)
    elif isinstance(value, list):
        if value[:1] == ["countersign"]:
            yield [str(item) for item in value]
        else:
            for item in value:
                yield from command_lines(item)
    elif isinstance(value, str):
        for line in value.replace("\\\n", " ").splitlines():
            if line.startswith("countersign "):
                # ${NAME:+"--option=$NAME"} is the option, where the input is given.
                yield shlex.split(re.sub(r'\$\{[A-Z]+:\+("[^"]*")\}', r"\1", line))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_template_calls_what_is_there(template: Path) -> None:
    """A template is copied into somebody's pipeline: a word in it that we renamed breaks theirs."""
    found = list(command_lines(yaml.safe_load(template.read_text())))
    assert found
    for _, *arguments in found:
        ours, command = _split(arguments)
        _parser(ours).parse_args(ours, argparse.Namespace(json=False, api=""))
        assert command


def test_every_ci_that_we_name_has_a_template() -> None:
    """GitHub, GitLab, Kubernetes: the issuers that have declarations."""
    assert {path.parent.name for path in TEMPLATES} >= {"github", "gitlab", "kubernetes"}
