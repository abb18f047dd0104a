"""Keeps ``docs/permissions.md``: every statement of every policy, and why it is there. ``.ci/docs.py`` compares.

Rules: what a statement allows is the template's to say, and this page repeats it; why is a person's to say, in the
page's last column, which :func:`page_text` keeps. A statement without a reason, or a page that tells of other
statements than the templates have, fails `make check`. Standard library only.

    python .ci/permissions.py    # writes the page anew, keeps the reasons; a new statement's is left to be written
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

PAGE: Final = "docs/permissions.md"
MISSING: Final = "**no reason yet**"
_MARK: Final = "<!-- from here on: python .ci/permissions.py -->\n"
_ROW: Final = re.compile(r"^\| `([A-Za-z]+)` \|.*\| ([^|]*) \|$")
_ARN: Final = re.compile(r"arn:aws:[a-z0-9]*:[^:]*:[^:]*:")
_FOLDERS: Final = (".chalice/policies", "infra/policies", "infra/bucket")


def templates(root: Path) -> dict[str, Mapping[str, Any]]:
    """Return the policies by their path: each function's, the others', and the bucket's own."""
    paths = [path for folder in _FOLDERS for path in sorted((root / folder).glob("*.json"))]
    found = {str(path.relative_to(root)): json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return {path: policy for path, policy in found.items() if "Statement" in policy}  # the lifecycle is none


def reasons(text: str) -> dict[tuple[str, str], str]:
    """Return the reasons that a page has, by policy and statement."""
    found: dict[tuple[str, str], str] = {}
    policy = ""
    for line in text.partition(_MARK)[2].splitlines():
        if line.startswith("## `"):
            policy = line[4:-1]
        elif row := _ROW.match(line):
            found[policy, row[1]] = row[2].strip()
    return found


def page_text(root: Path, text: str) -> str:
    """Return the page ``text`` with the tables that the templates have, and its own reasons."""
    known = reasons(text)
    parts = [text.partition(_MARK)[0], _MARK]
    for path, policy in templates(root).items():
        parts += [f"\n## `{path}`\n\n", "| statement | what | on | why |\n|---|---|---|---|\n"]
        for statement in policy["Statement"]:
            why = known.get((path, statement["Sid"]), MISSING)
            parts.append(f"| `{statement['Sid']}` | {_what(statement)} | {_on(statement)} | {why} |\n")
    return "".join(parts)


def _what(statement: Mapping[str, Any]) -> str:
    said = "" if statement["Effect"] == "Allow" else "**deny** "
    return said + ", ".join(f"`{action}`" for action in _listed(statement["Action"]))


def _on(statement: Mapping[str, Any]) -> str:
    resources = ", ".join(f"`{_ARN.sub('', resource)}`" for resource in _listed(statement["Resource"]))
    conditions = [
        f"`{key}` {operator} {', '.join(f'`{value}`' for value in _listed(values))}"
        for operator, tests in statement.get("Condition", {}).items()
        for key, values in tests.items()
    ]
    return resources + (f"; where {' and '.join(conditions)}" if conditions else "")


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def faults(root: Path) -> Iterator[str]:
    """Give what is wrong with the page, a line each."""
    page = root / PAGE
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    unnamed = [path for path, policy in templates(root).items() if any("Sid" not in one for one in policy["Statement"])]
    if unnamed:
        yield from (f"{PAGE}: {path}: a statement has no Sid, so nothing can say why it is there" for path in unnamed)
        return
    if text != page_text(root, text):
        yield f"{PAGE}: it is not what the policies say: python .ci/permissions.py"
    for (policy, statement), why in reasons(page_text(root, text)).items():
        if why == MISSING or not why:
            yield f"{PAGE}: {policy}: nothing says why {statement} is there"


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    page = root / PAGE
    page.write_text(page_text(root, page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
