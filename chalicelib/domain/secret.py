"""A value that must not be shown: every way of printing, formatting, pickling or serialising it redacts or refuses."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Holds one secret string. Only :meth:`expose` gives it out; ``grep expose`` finds every place that does."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def expose(self) -> str:
        """Return the secret. Call it where the bytes leave for their one destination, and nowhere else."""
        return self.__value

    def equals(self, other: str) -> bool:
        """Compare in constant time, so that a guess learns nothing from how long the answer took."""
        return hmac.compare_digest(self.__value.encode(), other.encode())

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never serialised")
