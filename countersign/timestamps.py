"""Times as the service writes them: RFC 3339, UTC, milliseconds and ``Z`` (``chalicelib.domain.canonical.timestamp``).

The form is taken strictly: one that this does not read is an answer that makes no sense.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z\Z")


def moment_of(text: object) -> datetime | None:
    """Return the moment, aware UTC; None where ``text`` is not one. Pure."""
    if not isinstance(text, str) or not _FORM.match(text):
        return None
    try:
        return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        return None
