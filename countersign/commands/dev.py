"""`countersign dev`: the whole local stack, until Ctrl-C. The code is in ``dev/``; everything after the word is its."""

from __future__ import annotations

from collections.abc import Sequence


def dev(arguments: Sequence[str]) -> int:
    """Hand over. Raises ImportError where the extra ``dev`` is not installed."""
    from dev.stack import main

    return main(arguments)
