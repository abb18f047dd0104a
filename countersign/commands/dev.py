"""`countersign dev`: the whole local stack, until Ctrl-C. The code is in ``dev/``; everything after the word is its."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from countersign.failures import Exit, Failure

# What the stack starts from, and no wheel holds: the roles' policies, the emulator's own environment.
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_USAGE_OF_ARGPARSE: Final = 2


def dev(arguments: Sequence[str]) -> int:
    """Hand over. Raises Failure (usage) outside a checkout; ImportError where the extra ``dev`` is not installed."""
    if not (_CHECKOUT / ".chalice" / "policies").is_dir():
        raise Failure(
            Exit.USAGE,
            "the local stack runs in a checkout of Countersign, and this is an installed package",
            hint="Clone the repository and run `make dev` in it.",
        )
    from dev.stack import main

    try:
        return main(arguments)
    except SystemExit as ended:
        if ended.code == _USAGE_OF_ARGPARSE:
            return Exit.USAGE
        raise
