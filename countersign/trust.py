"""The trust file: the fingerprints of our keys that an auditor got at onboarding, by another way than the archive.

Text, one key a line: its RFC 7638 SHA-256 thumbprint (43 base64url characters), or its purpose and then the thumbprint;
``#`` begins a comment. Keys that only whoever shows the evidence vouches for prove that it is whole, not whose it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chalicelib.domain.signature import KeyPurpose
from countersign.failures import Exit, Failure

_LINE: Final = re.compile(r"(?:(?P<purpose>[a-z-]+)\s+)?(?P<thumbprint>[A-Za-z0-9_-]{43})\s*\Z")
_MOST_BYTES: Final = 256 * 1024
_PURPOSES: Final = frozenset(purpose.value for purpose in KeyPurpose)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """Which keys are believed: (purpose, thumbprint), the purpose empty for any."""

    keys: frozenset[tuple[str, str]]

    def holds(self, purpose: str, thumbprint: str) -> bool:
        return (purpose, thumbprint) in self.keys or ("", thumbprint) in self.keys


def read_trust(path: str) -> Trust:
    """Return what the file at ``path`` says. Raises Failure (usage): unreadable, empty, or a line that is none."""
    try:
        text = Path(path).read_bytes()[: _MOST_BYTES + 1].decode("ascii")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Failure(Exit.USAGE, f"the trust file {path} cannot be read: {why}") from error
    if len(text) > _MOST_BYTES:
        raise Failure(Exit.USAGE, f"the trust file {path} is larger than any list of keys")
    keys: set[tuple[str, str]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        found = _LINE.match(said)
        if found is None or (found["purpose"] is not None and found["purpose"] not in _PURPOSES):
            raise Failure(
                Exit.USAGE,
                f"{path}:{number} is neither a thumbprint nor a purpose and a thumbprint",
                hint=f"Purposes: {', '.join(sorted(_PURPOSES))}.",
            )
        keys.add((found["purpose"] or "", found["thumbprint"]))
    if not keys:
        raise Failure(Exit.USAGE, f"the trust file {path} names no key")
    return Trust(keys=frozenset(keys))
