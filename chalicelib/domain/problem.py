"""What is wrong with a configuration bundle, said so that its author can put it right: file, line, what, remedy.

One :class:`ConfigurationInvalid` carries all the problems of a bundle, so that nobody corrects them one run at a time.
It is not a subclass: a bundle that cannot be loaded is one kind of refusal with one code, whatever found it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import ConfigurationInvalid


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """``line`` counts from 1; 0 is the file as a whole. ``remedy`` is what to do, as a sentence."""

    file: str
    line: int
    message: str
    remedy: str

    def text(self) -> str:
        """Return ``file:line: message. remedy``, the form that editors make clickable."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}. {self.remedy}"


def configuration_invalid(problems: Sequence[Problem]) -> ConfigurationInvalid:
    """Return the error that carries ``problems`` (one at least), ordered by file and line."""
    ordered = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.message)))
    more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
    return ConfigurationInvalid(ordered[0].text() + more, problems=ordered)


def problems_of(error: ConfigurationInvalid, *, file: str) -> tuple[Problem, ...]:
    """Return the problems that ``error`` carries; one that carries none becomes a problem of ``file``. Never empty."""
    found = error.detail.get("problems")
    if isinstance(found, tuple) and found and all(isinstance(problem, Problem) for problem in found):
        return found
    return (Problem(file=file, line=0, message=error.public, remedy=error.next_step),)
