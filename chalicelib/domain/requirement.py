"""What a rule may require before it stops forbidding: a closed, versioned list.

Grammar of the ``@requires`` annotation: ``approval:GROUP:COUNT[:webauthn]`` · ``mask:RULE[,RULE...]`` · ``durable`` ·
``record:full`` · ``bound``. An unknown or malformed requirement refuses the bundle (``ConfigurationInvalid``): a
requirement that nobody knows would otherwise be one that nobody meets, or worse, one that everybody does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from chalicelib.domain.errors import ConfigurationInvalid

REQUIREMENTS_VERSION: Final = 1
MAX_APPROVERS: Final = 9  # more people than this never answer one card; a larger number is a typing error
WEBAUTHN: Final = "webauthn"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """``count`` different people of ``group`` must answer yes; with ``webauthn`` each by an assertion of their passkey,
    so that a click alone does not count."""

    group: str
    count: int
    webauthn: bool = False

    @property
    def phrase(self) -> str:
        """How people are told: ``2 of dba with a passkey``."""
        return f"{self.count} of {self.group}{' with a passkey' if self.webauthn else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskWith:
    """The named mask rules of ``masking.yaml`` apply to what comes back."""

    masks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Durable:
    """Forward only when the record is acknowledged by the bucket."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordFull:
    """Record rows too, masked, not only statements and counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """The session must be proved with a key of the caller's, not with a secret alone."""


Requirement: TypeAlias = Approval | MaskWith | Durable | RecordFull | Bound


def parse_requirement(text: str) -> Requirement:
    """Return the requirement that ``text`` states. Raises ConfigurationInvalid on anything else. Pure."""
    head, _, rest = text.strip().partition(":")
    match head, rest:
        case "durable", "":
            return Durable()
        case "bound", "":
            return Bound()
        case "record", "full":
            return RecordFull()
        case "mask", names if names:
            masks = tuple(part.strip() for part in names.split(","))
            if all(_NAME.match(mask) for mask in masks):
                return MaskWith(masks=masks)
        case "approval", what:
            group, _, rest = what.partition(":")
            count, _, how = rest.partition(":")
            counts = count.isascii() and count.isdigit() and 1 <= int(count) <= MAX_APPROVERS
            if _NAME.match(group) and counts and rest in (count, f"{count}:{WEBAUTHN}"):
                return Approval(group=group, count=int(count), webauthn=how == WEBAUTHN)
    raise ConfigurationInvalid(
        f"requirement {text!r} is not one of approval:GROUP:COUNT[:webauthn], mask:RULE[,RULE], durable, record:full, "
        "bound"
    )
