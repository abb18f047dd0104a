"""What the deployment prints, and the one question that it asks: the only place with ``print`` and ``input`` here."""

from __future__ import annotations

import sys
from typing import Protocol


class Operator(Protocol):
    """Who runs the deployment."""

    def tell(self, text: str) -> None:
        """Show a line or several."""

    def agrees(self, question: str, word: str) -> bool:
        """Ask, and return whether the answer is exactly ``word``. Nobody there is a no."""


class Terminal:
    """The person at the terminal, or with ``agreed`` (``YES=1``) a pipeline that has agreed beforehand. Where there is
    no terminal and nobody agreed, every answer is no: a deployment does not begin because a pipe was empty."""

    def __init__(self, *, agreed: bool) -> None:
        self._agreed = agreed

    def tell(self, text: str) -> None:
        print(text, flush=True)

    def agrees(self, question: str, word: str) -> bool:
        if self._agreed:
            print(f"{question} {word} (YES=1)", flush=True)
            return True
        if not sys.stdin.isatty():
            print(f"{question} Nobody is here to ask: run it in a terminal, or say YES=1.", flush=True)
            return False
        return input(f"{question} Type {word} to go on: ").strip() == word
