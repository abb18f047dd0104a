"""Masks on what belongs to no operation: errors, notices, notifications. They take the union of the session's masks.

What stays readable: severity, SQLSTATE, HINT, position, the names of schema, table, column, type and constraint,
file, line and routine; MESSAGE of the server's own, apart from its quoted parts and what follows a colon where
those may be values. Where a rule that applies covers columns: DETAIL, CONTEXT (the field ``W``) and the internal
query are replaced whole, for every class, since "Key (email)=(...) already exists" and "Failing row contains (...)"
carry rows. What a function raised (P0001, PL/pgSQL's RAISE at any level) is replaced whole, hint and all: where it
has its words from is not proved. Names in the MESSAGE of other classes (42: "column \"x\" does not exist") stay.

Source: PostgreSQL 15 manual, 55.8 Error and Notice Message Fields; Appendix A SQLSTATE classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import re2

from broker.engines.postgres.origins import Masked
from broker.masking import Detectors
from chalicelib.domain.masking import MaskRule, mask_text

_WHOLE: Final = frozenset("DWq")  # detail, where (context), internal query
_TEXTS: Final = frozenset("MDHWqstcdn")
# Classes whose messages the server fills with names and settings, never with a row's values.
_NAMES_ONLY: Final = frozenset(
    {"00", "08", "0A", "25", "28", "2D", "34", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"}
)
_QUOTED: Final = re2.compile(r'(?s)"[^"]*("|\z)|\'[^\']*(\'|\z)|«[^»]*(»|\z)|“[^”]*(”|\z)')
# Where PL/pgSQL, PL/Python and PL/Perl report what a function raises (the field R, routine).
_RAISERS: Final = frozenset({"exec_stmt_raise", "PLy_output", "PLy_elog_impl", "do_util_elog", "plperl_util_elog"})
# What a message ends with after a colon is what was read: `invalid input syntax for type integer: "a@b"`.
_AFTER_COLON: Final = re2.compile(r"(?s):\s.*\z")


def mask_fields(
    fields: Mapping[str, str], rules: Sequence[MaskRule], masked: Masked, detectors: Detectors | None = None
) -> dict[str, str]:
    """Return the fields (by their one-letter codes) of an ErrorResponse or NoticeResponse as the client may see them.

    ``rules``: the union of what applied in this session; ``masked``: what rules name on the target. Never raises.
    """
    found = detectors if detectors is not None else Detectors(rules)
    covering = sorted(rule.name for rule in rules if rule.columns) if masked.columns else []
    raised = _is_raised(fields)
    shown: dict[str, str] = {}
    for code, text in fields.items():
        if code not in _TEXTS:
            shown[code] = text
        elif covering and (code in _WHOLE or raised):
            shown[code] = mask_text(covering[0])
        elif covering and code == "M" and _may_quote(fields):
            shown[code] = found.mask(_without_values(text, covering[0]))
        else:
            shown[code] = found.mask(text)
    return shown


def mask_payload(payload: str, rules: Sequence[MaskRule], masked: Masked, detectors: Detectors | None = None) -> str:
    """Return a NotificationResponse's payload as the client may see it. It is text of whoever sent it: a trigger may
    have put a row in, so where a rule covers columns it is replaced whole, unless it is empty."""
    covering = sorted(rule.name for rule in rules if rule.columns) if masked.columns else []
    if covering and payload:
        return mask_text(covering[0])
    return (detectors if detectors is not None else Detectors(rules)).mask(payload)


def _is_raised(fields: Mapping[str, str]) -> bool:
    """Whether a function of a user made this text: its message is no more proved than a column that it computes."""
    sqlstate = fields.get("C", "")
    return fields.get("R", "") in _RAISERS or sqlstate == "P0001" or (sqlstate[:2] == "00" and "W" in fields)


def _may_quote(fields: Mapping[str, str]) -> bool:
    return fields.get("C", "")[:2] not in _NAMES_ONLY or "W" in fields


def _without_values(text: str, rule: str) -> str:
    if _QUOTED.search(text) is None and _AFTER_COLON.search(text) is None:
        return text
    without: str = _AFTER_COLON.sub(f": {mask_text(rule)}", _QUOTED.sub(mask_text(rule), text))
    return without
