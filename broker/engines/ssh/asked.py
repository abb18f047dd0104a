"""What a client may ask of a session channel before its program runs: terminal, environment, command. Pure.

Rules: of the environment LANG and LC_* pass, with values of a plain alphabet; everything else is left out without a
word, since LD_PRELOAD, BASH_ENV or GIT_SSH_COMMAND would make an approved command another one (security.md). A
terminal's name has terminfo's alphabet: it is printed, looked up as a file's name, and put into the environment.

Source: RFC 4254 sections 6.2, 6.4, 6.5; POSIX.1-2024, 8.2; term(7).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from broker.engines.ssh.command import shell_act, understand
from broker.masking import CLIENT_TEXT
from broker.wire.ssh import messages
from chalicelib.domain.identifiers import new_operation_id
from chalicelib.domain.operation import Act, Operation

PROTOCOL: Final = "ssh"
MAX_VARIABLES: Final = 32  # Debian's client sends a dozen
_MAX_CELLS: Final = 65_535  # struct winsize has 16 bits
_MAX_MODES: Final = 1024  # every mode there is takes 5 bytes; OpenSSH sends 250
_NAME: Final = re.compile(rb"(?:LANG|LANGUAGE|LC_[A-Z_]{1,32})\Z")
_VALUE: Final = re.compile(rb"[A-Za-z0-9_.@:+-]{0,128}\Z")
_TERM: Final = re.compile(r"[A-Za-z0-9._+-]{0,64}\Z")
_SIGNAL: Final = re.compile(r"[A-Z0-9]{1,16}(?:@[A-Za-z0-9.-]{1,64})?\Z")


@dataclass(slots=True)
class Asked:
    """What was asked so far. ``command`` None, once judged: an interactive shell."""

    terminal: messages.Terminal | None = None
    environment: dict[bytes, bytes] = field(default_factory=dict)
    command: bytes | None = None

    def want_terminal(self, terminal: messages.Terminal) -> bool:
        """Return whether it may be had."""
        plain = _TERM.match(terminal.term) is not None and len(terminal.modes) <= _MAX_MODES
        if plain and fits(terminal):
            self.terminal = terminal
            return True
        return False

    def want_variable(self, name: bytes, value: bytes) -> bool:
        """Return whether it is set."""
        if _NAME.match(name) is None or _VALUE.match(value) is None or len(self.environment) >= MAX_VARIABLES:
            return False
        self.environment[name] = value
        return True

    @property
    def raw(self) -> bool:
        """Whether the client's terminal is raw: a line then ends with CR LF."""
        return self.terminal is not None

    def state(self, login: str) -> tuple[tuple[str, str], ...]:
        """Return what changes the meaning of the command line, for the card and the digest."""
        variables = " ".join(f"{name.decode()}={value.decode()}" for name, value in sorted(self.environment.items()))
        return (
            ("login", login),
            ("terminal", (self.terminal.term or "unnamed") if self.terminal is not None else "none"),
            ("environment", variables or "none"),
            ("input", "the client's" if self.command is None else "closed"),
        )


def fits(size: messages.Terminal | messages.Size) -> bool:
    """Return whether a terminal can have this size. Pure."""
    return max(size.cols, size.rows, size.width, size.height) <= _MAX_CELLS


def is_signal(name: str) -> bool:
    """Return whether ``name`` can be a signal's (RFC 4254 section 6.10). Pure."""
    return _SIGNAL.match(name) is not None


def program(asked: Asked, now: datetime) -> Operation:
    """Return the operation of an exec or a shell."""
    terminal = asked.terminal is not None
    if asked.command is None:
        return _operation("", shell_act(terminal=terminal), b"", now)
    text = asked.command.decode("utf-8", "backslashreplace")
    return _operation(text, understand(asked.command, terminal=terminal), asked.command, now)


def feature(name: str, detail: str, now: datetime) -> Operation:
    """Return the operation of something that is refused whoever asks: it has no act, so that nothing permits it. It is
    shown without the domain of an extension's name, which a detector would take for an address of somebody's."""
    what = f"{name.partition('@')[0]} {detail}".rstrip()
    return _operation(what, None, what.encode("utf-8", "backslashreplace"), now)


def _operation(text: str, act: Act | None, exact: bytes, now: datetime) -> Operation:
    shown, literals = CLIENT_TEXT.literals(text)
    return Operation(
        id=new_operation_id(now),
        protocol=PROTOCOL,
        acts=() if act is None else (act,),
        text=shown,
        shown_binds=(),
        literals=literals,
        exact=exact,
        binds=(),
    )
