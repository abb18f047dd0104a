"""What the demo's audience sees: numbered steps, what was typed, what came back, and a mark for each thing observed.

Rules: a mark is printed only by :meth:`Screen.held`, which takes what was observed and keeps the failures: the demo's
exit code is made of them, never of the text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from dev.output import Style, say, say_parts

_WIDTH = 104  # fits a terminal beside an editor, and a screenshot in a README


class Screen:
    """Prints the story, and remembers what did not hold."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.observed = 0

    def title(self, text: str, below: str) -> None:
        say()
        say(text, Style.BOLD)
        say(below, Style.DIM)

    def step(self, number: int, text: str) -> None:
        say()
        say_parts(
            (f"── {number} ", Style.CYAN),
            (text, Style.BOLD),
            (" " + "─" * max(0, _WIDTH - 5 - len(f"{number}{text}")), Style.CYAN),
        )

    def told(self, text: str) -> None:
        """One or two sentences of the story."""
        say(textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   "), Style.DIM)

    def typed(self, text: str, prompt: str = "$") -> None:
        """A command as it was typed, folded as a shell takes it."""
        first, *more = textwrap.wrap(
            text, _WIDTH - 8 - len(prompt), break_long_words=False, break_on_hyphens=False, drop_whitespace=False
        ) or [""]
        say_parts((f"   {prompt} ", Style.CYAN), (f"{first}\\" if more else first, Style.BOLD))
        for place, line in enumerate(more):
            say_parts(("       ", Style.CYAN), (line if place == len(more) - 1 else f"{line}\\", Style.BOLD))

    def came_back(self, lines: Sequence[str], style: Style = Style.PLAIN) -> None:
        for line in lines:
            say(f"   {line}", style)

    def card(self, lines: Sequence[str]) -> None:
        """A Slack card, boxed."""
        folded = [part for line in lines for part in (textwrap.wrap(line, _WIDTH - 10) or [""])]
        say("     ┌─ Slack " + "─" * (_WIDTH - 15), Style.YELLOW)
        for line in folded:
            say_parts(("     │ ", Style.YELLOW), (line, Style.PLAIN))
        say("     └" + "─" * (_WIDTH - 6), Style.YELLOW)

    def held(self, holds: bool, text: str, why_not: str = "") -> bool:
        """Say that ``text`` was observed, or that it was not and why; return which."""
        if holds:
            self.observed += 1
            say_parts(("   ✓ ", Style.GREEN), (text, Style.PLAIN))
        else:
            self.failures.append(text)
            say_parts(("   ✗ ", Style.RED), (f"NOT OBSERVED: {text}", Style.BOLD), (f"  {why_not}", Style.DIM))
        return holds

    def end(self, seconds: float) -> None:
        say()
        if self.failures:
            say(f"{len(self.failures)} of {len(self.failures) + self.observed} observations did not hold:", Style.RED)
            for failure in self.failures:
                say(f"  ✗ {failure}", Style.RED)
        else:
            say(f"All {self.observed} observations held, in {seconds:.0f} s.", Style.GREEN)
