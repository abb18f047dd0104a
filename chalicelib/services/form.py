"""What the members of a request's JSON say, checked for their shape alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.domain.errors import BadRequest


def text_of(told: Mapping[str, Any], name: str, limit: int) -> str:
    """Return the text of a member; empty where it is absent. Raises BadRequest past ``limit`` characters. Pure."""
    value = told.get(name, "")
    if not isinstance(value, str) or len(value) > limit:
        raise BadRequest(f"{name} is no text of at most {limit} characters")
    return value
