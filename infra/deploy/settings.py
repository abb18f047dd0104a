"""The environment of the operator's tools: read here and nowhere else in ``infra/deploy``.

Terraform and Chalice are the operator's own tools, under the operator's own credentials (a profile, single sign-on, a
pipeline's role), so they get the environment as it is, and nothing of it is printed or kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chalicelib.settings import SystemClock

ROOT: Final = Path(__file__).resolve().parents[2]


def operators_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a tool that the operator would run by hand, and ``extra``."""
    return {**os.environ, **(extra or {})}


def search_path() -> str:
    """Return the folders where programs are looked for."""
    return os.environ.get("PATH", os.defpath)


__all__ = ["ROOT", "SystemClock", "operators_environment", "search_path"]
