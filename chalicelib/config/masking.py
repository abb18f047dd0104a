"""``masking.yaml``: named masks, which columns and which detected values each covers.

A mask applies where a policy requires it (``@requires("mask:email")``); this file only says what it covers. Patterns
run in RE2 over every byte that comes back; RE2 is not in the Lambda's package, so what it does not know (looking
around, back references, repeats past 1,000) is refused here by a check of the text, on the side of refusing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from chalicelib.config.model import BundleFile, Finding, Name, Strict
from chalicelib.domain.masking import ColumnName, MaskMode, MaskRule

_PART: Final = r"[A-Za-z_][A-Za-z0-9_$]{0,62}"
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_KNOWN_ESCAPES: Final = frozenset("dDwWsSbBAtnrfvax")  # what Python and RE2 read alike, of letters and digits
# What RE2 lacks, with escapes taken out: groups that are no plain, named or flag group; possessive repeats.
_NOT_RE2: Final = re.compile(r"\(\?(?!:|P<[A-Za-z_]|[ims]{1,3}(-[ims]{1,3})?[:)])|[*+?}]\+")
_BACKSPACE: Final = re.compile(r"\[[^\]]*\\b")  # \b in a set, which only Python has
_REPEAT: Final = re.compile(r"\{(\d*),?(\d*)\}")
_MAX_REPEAT: Final = 1000  # RE2's own limit

Detector: TypeAlias = Literal[
    "aws_access_key",
    "card_number",
    "connection_password",
    "email",
    "iban",
    "jwt",
    "password",
    "private_key",
    "url_password",
]


class MaskEntry(Strict):
    """One named mask."""

    mode: Annotated[
        Literal["redact", "partial", "null"],
        Field(description="redact: the whole value; partial: all but the last four characters; null: NULL instead."),
    ]
    targets: Annotated[
        list[Name], Field(max_length=1000, description="The targets that it covers; empty or absent: all of them.")
    ] = []  # noqa: RUF012 - pydantic copies a field's default
    columns: Annotated[
        list[Annotated[str, Field(pattern=rf"^{_PART}\.{_PART}\.{_PART}$")]],
        Field(max_length=1000, description="Columns as schema.table.column."),
    ] = []  # noqa: RUF012
    detectors: Annotated[
        list[Detector],
        Field(
            max_length=20,
            description="Built-in detectors, whose hits are masked in any value: email, card_number, iban, jwt, "
            "aws_access_key, private_key, password, connection_password, url_password.",
        ),
    ] = []  # noqa: RUF012
    patterns: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=512)]],
        Field(max_length=50, description="RE2 patterns of your own, whose hits are masked in any value."),
    ] = []  # noqa: RUF012


class MaskingFile(BundleFile):
    """masking.yaml: what each named mask covers."""

    masks: Annotated[
        dict[Name, MaskEntry], Field(max_length=1000, description='Each mask by the name in @requires("mask:NAME").')
    ]

    def findings(self) -> Iterator[Finding]:
        """Yield what the types alone do not refuse."""
        for name, entry in self.masks.items():
            if not (entry.columns or entry.detectors or entry.patterns):
                yield Finding(
                    path=("masks", name),
                    message=f"mask {name} covers nothing, so a rule that requires it would hide nothing",
                    remedy="Name columns, detectors or patterns.",
                )
            for number, pattern in enumerate(entry.patterns):
                wrong = _wrong_with(pattern)
                if wrong:
                    yield Finding(
                        path=("masks", name, "patterns", number),
                        message=f"the pattern {wrong}",
                        remedy="Use RE2 syntax: https://github.com/google/re2/wiki/Syntax",
                    )

    def domain(self) -> Mapping[str, MaskRule]:
        return {name: _rule(name, entry) for name, entry in self.masks.items()}


def _wrong_with(pattern: str) -> str:
    """Return what is wrong with ``pattern``, empty where nothing is. Pure."""
    unknown = [c for c in _ESCAPE.findall(pattern) if c.isalnum() and c not in _KNOWN_ESCAPES]
    if unknown or _BACKSPACE.search(pattern) or _NOT_RE2.search(_ESCAPE.sub("_", pattern)):
        return "has what RE2 does not know: a look around or back, a possessive repeat, a flag or an escape"
    if any(int(part) > _MAX_REPEAT for pair in _REPEAT.findall(pattern) for part in pair if part):
        return f"repeats more than {_MAX_REPEAT} times"
    try:
        with warnings.catch_warnings():
            # A set that Python may read otherwise one day ("[[") is RE2's to judge, not a reason to warn.
            warnings.simplefilter("ignore", FutureWarning)
            empty = re.compile(pattern).search("")
    except (re.error, OverflowError, RecursionError) as error:
        return f"is not a regular expression ({error})"
    return "matches the empty text, so it would mask between any two characters" if empty else ""


def _rule(name: str, entry: MaskEntry) -> MaskRule:
    columns = []
    for text in entry.columns:
        schema, table, column = text.split(".")
        columns.append(ColumnName(schema=schema, table=table, column=column))
    return MaskRule(
        name=name,
        mode=MaskMode(entry.mode),
        targets=tuple(entry.targets),
        columns=tuple(columns),
        detectors=tuple(entry.detectors),
        patterns=tuple(entry.patterns),
    )
