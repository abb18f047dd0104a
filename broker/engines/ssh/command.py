"""What a command line means: one Act, literal or opaque. Pure; knows no SSH.

sshd hands the line to the account's own shell (RFC 4254 section 6.5 leaves its meaning to the server), which may be
any. So this is no shell's parser but a grammar so narrow that every shell agrees on what it says: words apart by
spaces, each of a safe alphabet or in quotes in which nothing is expanded. Whatever else there is in the line, an
operator, an expansion, a redirection, an assignment, a byte that is not printable ASCII (some shells take a no-break
space for a blank, some encodings take half of a letter for a backslash), makes it ``ssh:opaque``, which needs a permit
of its own. So does a program that is not named by a bare name or an absolute path in its plain spelling, and one whose
arguments do not say what it does (``programs``).

Rules: only ``ssh:exec`` says what will run. ``command`` has the words joined by one space, each that is not plain in
quotes (as ``shlex.join`` writes it), so that two lines with different words never look alike; ``program`` is the last
part of the first word's path where that is a bare name or one of the system's own folders, else the path as it stands:
``/tmp/cat`` is not ``cat``, whatever a rule permits to ``cat``. An opaque line that is literal keeps its words, so that
a permit can name it whole; one that is not has none.

What it does not do: know what the target's shell makes of a name (a function in ``.bashrc``, its PATH), or what a
program does with its input. Those are the account's own files; the account must not be able to write them.

Source: POSIX.1-2024, Shell Command Language, 2.2 Quoting and 2.6 Word Expansions; bash(1), zshexpn(1), zshmisc(1),
fish-language(1), tcsh(1), for where they differ.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Final

from broker.engines.ssh.programs import why_not_read
from chalicelib.domain.operation import Act

EXEC: Final = "ssh:exec"
SHELL: Final = "ssh:shell"
OPAQUE: Final = "ssh:opaque"
MAX_LINE: Final = 4096  # bytes: what no approver reads to its end is not judged by its words

# Backslash: fish ends no string at \' and takes \\ for one. !: csh looks up its history inside quotes too.
_SINGLE: Final = r"'(?:[^'\\!]|\\(?!['\\]))*+'"
_DOUBLE: Final = r'"[^"$`\\!]*+"'
_PLAIN: Final = r"[A-Za-z0-9_./:,+@%=-]++"
_PART: Final = re.compile(rf"{_SINGLE}|{_DOUBLE}|{_PLAIN}")
# Not first: = (zsh looks up a program) and % (a job). Possessive, so that no line takes more than linear time.
_WORD: Final = rf"(?![=%])(?:{_PLAIN}|{_SINGLE}|{_DOUBLE})++"
_LINE: Final = re.compile(rf" *+{_WORD}(?: ++{_WORD})*+ *+\Z")
_EACH_WORD: Final = re.compile(_WORD)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*+\Z")
_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.+-]+)+\Z")
_NOT_LITERAL: Final = "it is not one plain command: name files in full, without shell syntax"
_NO_PROGRAM: Final = "its program is not a bare name or a plain absolute path"
# Where programs of the system are, and no account's own.
_SYSTEM: Final = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """``words`` is empty where the line is not literal; ``why`` says why it is opaque, empty where it is not."""

    words: tuple[str, ...]
    program: str
    why: str


def understand(line: bytes | str, *, terminal: bool) -> Act:
    """Return what the command ``line`` of an exec request means; ``terminal``: it was asked for. Pure, never raises."""
    reading = _read(line, terminal=terminal)
    return _act(OPAQUE if reading.why else EXEC, reading.words, reading.program, terminal=terminal)


def shell_act(*, terminal: bool) -> Act:
    """Return what a request for the account's shell means: whatever is typed into it. Pure."""
    return _act(SHELL, (), "", terminal=terminal)


def why_opaque(line: bytes | str, *, terminal: bool) -> str:
    """Return in one printable line why ``line`` is opaque, for whoever typed it; empty where it is not. Pure."""
    return _read(line, terminal=terminal).why


def _act(action: str, words: tuple[str, ...], program: str, *, terminal: bool) -> Act:
    return Act(
        action=action,
        context=(
            ("command", shlex.join(words)),
            ("program", program),
            ("arguments", tuple(sorted(set(words[1:])))),
            ("terminal", terminal),
        ),
    )


def _read(line: bytes | str, *, terminal: bool) -> _Reading:
    words = literal_words(line)
    if not words:
        return _Reading(words=(), program="", why=_NOT_LITERAL)
    folder, slash, last = words[0].rpartition("/")
    if not (_PATH if slash else _NAME).match(words[0]):  # among others an assignment, which is no word of the command
        return _Reading(words=(), program="", why=_NO_PROGRAM)
    program = last if not slash or folder in _SYSTEM else words[0]
    why = why_not_read(last, words[1:], terminal=terminal)
    return _Reading(words=words, program=program, why=f"{last}: {why}" if why else "")


def literal_words(line: bytes | str) -> tuple[str, ...]:
    """Return the words of a fully literal simple command, as every shell reads them; none where it is not one. Pure."""
    if isinstance(line, bytes):
        line = line.decode("latin-1")  # what is not ASCII is refused below, whatever it would have been
    if len(line) > MAX_LINE or not (line.isascii() and line.isprintable()) or not _LINE.match(line):
        return ()
    return tuple("".join(_unquoted(part) for part in _PART.findall(word)) for word in _EACH_WORD.findall(line))


def _unquoted(part: str) -> str:
    return part[1:-1] if part[0] in "'\"" else part
