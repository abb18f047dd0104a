"""Checks the documentation against the tree, so that it cannot lie for long. `make check` runs it.

What is checked: relative links and anchors of every Markdown file; each word of the glossary is a class or a type of
that name in the code, in the file that the glossary names; `docs/errors.md` and `chalicelib/domain/errors.py` list the
same codes; each decision has its sections and is listed; each test that the threat model names exists; each `make`
target that a page names exists; the state table of `docs/architecture.md` names exactly the roles whose policies may
write each table; `docs/openapi.json` is what the endpoints declare; `docs/permissions.md` tells every statement of
every policy, with a reason (`.ci/permissions.py`).
It needs the standard library, and for the last check what the endpoints need.

    python .ci/docs.py [ROOT]
"""

from __future__ import annotations

import importlib
import json
import re
import runpy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_SKIPPED: Final = {".venv", ".cache", ".git", "node_modules", ".hypothesis", ".mypy_cache", ".ruff_cache"}
_LINK: Final = re.compile(r"\[[^\]\n]*\]\(([^()\s]+)\)")
_FENCE: Final = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(r"`[^`\n]*`")
_INLINE_CODE: Final = re.compile(r"`([^`\n]+)`")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_CODE: Final = re.compile(r"^\| *`([a-z_]+)` *\|", re.MULTILINE)
_TEST: Final = re.compile(r"`(test_[a-z0-9_]+)`")
_MAKE: Final = re.compile(r"`make ([a-z]+)[^`\n]*`|^make ([a-z]+)", re.MULTILINE)
_WRITES: Final = re.compile(r"dynamodb:(Put|Update|Delete|BatchWrite|Transact.*Write|PartiQL|\*)|\*\Z")
_SECTIONS: Final = ("Context", "Drivers", "Options", "Outcome", "Good, bad")
_CODE_FOLDERS: Final = ("chalicelib", "broker", "countersign")


def pages(root: Path) -> list[Path]:
    """Return every Markdown file of ours, sorted."""
    return sorted(page for page in root.rglob("*.md") if not _SKIPPED & set(page.relative_to(root).parts))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of ``page``."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while f"{anchor}-{number}" in found or (number == 0 and anchor in found):
            number += 1
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


def broken_links(root: Path) -> Iterator[str]:
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        prose = _INLINE.sub("", _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text))
        for link in _LINK.finditer(prose):
            target = link[1]
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue  # another site's: no check of ours depends on the network
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            where = f"{page.relative_to(root)}:{prose.count(chr(10), 0, link.start()) + 1}"
            if not place.exists():
                yield f"{where}: the link {target} leads nowhere"
            elif anchor and place.suffix == ".md" and anchor not in anchors(place):
                yield f"{where}: {target} has no such heading"


def text_of(page: Path) -> str:
    """Return what ``page`` holds; nothing where it is not there, so that its check says what is missing in it."""
    return page.read_text(encoding="utf-8") if page.is_file() else ""


def glossary_words(root: Path) -> list[str]:
    """Return the words in the first column of the glossary's table."""
    words: list[str] = []
    for line in text_of(root / "docs/glossary.md").splitlines():
        cells = line.split("|")
        if len(cells) > 3 and (found := re.findall(r"\*\*([A-Za-z]+)\*\*", cells[1])):
            words += found
    return words


def glossary_homes(root: Path) -> Iterator[str]:
    """Give what is wrong with the glossary's last column: each file exists, and one of them defines the row's word."""
    for line in text_of(root / "docs/glossary.md").splitlines():
        cells = line.split("|")
        words = re.findall(r"^ *\*\*([A-Za-z]+)\*\*", cells[1]) if len(cells) > 3 else []
        for word in words:
            homes = [root / home for home in _INLINE_CODE.findall(cells[3])]
            for home in homes:
                if not home.exists():
                    yield f"docs/glossary.md: {word}: there is no {home.relative_to(root)}"
            files = [file for home in homes for file in ([home] if home.is_file() else sorted(home.rglob("*.py")))]
            if not any(_defines(word, file.read_text(encoding="utf-8")) for file in files):
                yield f"docs/glossary.md: {word} is not defined where the glossary says"


def _defines(word: str, code: str) -> bool:
    return bool(re.search(rf"^(class {word}\b|{word}: TypeAlias = |{word} = NewType)", code, re.MULTILINE))


def missing_words(root: Path) -> Iterator[str]:
    code = "\n".join(
        file.read_text(encoding="utf-8") for folder in _CODE_FOLDERS for file in sorted((root / folder).rglob("*.py"))
    )
    words = glossary_words(root)
    if not words:
        yield "docs/glossary.md: no word was found in its table"
    for word in words:
        if not _defines(word, code):
            yield f"docs/glossary.md: no class or type in the code has the name {word}"


def code_differences(root: Path) -> Iterator[str]:
    sys.path.insert(0, str(root))
    errors = runpy.run_path(str(root / "chalicelib/domain/errors.py"))
    known = {kind.code for kind in errors["leaf_errors"]()}
    told = set(_CODE.findall(text_of(root / "docs/errors.md")))
    for code in sorted(known - told):
        yield f"docs/errors.md: the code {code} is not listed"
    for code in sorted(told - known):
        yield f"docs/errors.md: {code} is no code of chalicelib/domain/errors.py"


def decision_faults(root: Path) -> Iterator[str]:
    folder = root / "docs/adr"
    listed = text_of(folder / "README.md")
    for page in sorted(folder.glob("[0-9]*.md")):
        headings = _HEADING.findall(page.read_text(encoding="utf-8"))
        for section in _SECTIONS:
            if section not in headings:
                yield f"{page.relative_to(root)}: it has no section {section!r}"
        if f"]({page.name})" not in listed:
            yield f"docs/adr/README.md: {page.name} is not listed"


def missing_tests(root: Path) -> Iterator[str]:
    tests = "\n".join(file.read_text(encoding="utf-8") for file in sorted((root / "tests").rglob("test_*.py")))
    defined = set(re.findall(r"^ *(?:async )?def (test_[a-z0-9_]+)\(", tests, re.MULTILINE))
    modules = {file.stem for file in (root / "tests").rglob("test_*.py")}
    for name in _TEST.findall(text_of(root / "docs/threat_model.md")):
        if name not in defined | modules:
            yield f"docs/threat_model.md: there is no test {name}"


def missing_targets(root: Path) -> Iterator[str]:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for page in pages(root):
        for found in _MAKE.finditer(page.read_text(encoding="utf-8")):
            if (found[1] or found[2]) not in targets:
                yield f"{page.relative_to(root)}: the Makefile has no target {found[1] or found[2]}"


def writers_told(root: Path) -> dict[str, set[str]]:
    """Return table to roles, as the state table of the architecture has them."""
    section = text_of(root / "docs/architecture.md").partition("\n## State\n")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ")]
    return {row[1].strip(): set(re.findall(r"`([a-z_]+)`", row[2])) for row in rows[1:]}


def writers_allowed(root: Path) -> dict[str, set[str]]:
    """Return table to roles, as the policies have them."""
    found: dict[str, set[str]] = {}
    for policy in (*root.glob(".chalice/policies/*.json"), *root.glob("infra/policies/*.json")):
        for statement in json.loads(policy.read_text(encoding="utf-8"))["Statement"]:
            actions, resources = _listed(statement["Action"]), _listed(statement["Resource"])
            if statement["Effect"] == "Allow" and any(_WRITES.match(action) for action in actions):
                for table in re.findall(r":table/\$\{PREFIX\}-([a-z*]+)(?![^ ]*/)", " ".join(resources)):
                    found.setdefault(table, set()).add(policy.stem)
    return found


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def state_differences(root: Path) -> Iterator[str]:
    told, allowed = writers_told(root), writers_allowed(root)
    for table in sorted(told.keys() | allowed.keys()):
        says, may = told.get(table), allowed.get(table, set())
        if says != may:
            names = ", ".join(sorted(may)) or "nobody"
            yield f"docs/architecture.md: by the policies {names} may write {table}, and the state table says otherwise"


def contract_drift(root: Path) -> Iterator[str]:
    sys.path.insert(0, str(root))
    declared = importlib.import_module("chalicelib.api.openapi").document_text()
    if text_of(root / "docs/openapi.json") != declared:
        how = "python -m chalicelib.api.openapi > docs/openapi.json"
        yield f"docs/openapi.json is not what the endpoints declare: {how}"


def permission_differences(root: Path) -> Iterator[str]:
    yield from runpy.run_path(str(Path(__file__).parent / "permissions.py"))["faults"](root)


def main(arguments: Iterable[str]) -> int:
    root = Path(next(iter(arguments), Path(__file__).parents[1])).resolve()
    faults = [fault for check in _CHECKS for fault in check(root)]
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


_CHECKS: Final = (
    broken_links,
    missing_words,
    glossary_homes,
    code_differences,
    decision_faults,
    missing_tests,
    missing_targets,
    state_differences,
    contract_drift,
    permission_differences,
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
