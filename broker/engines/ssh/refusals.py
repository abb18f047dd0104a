"""What a client of ssh reads of a refusal: one line on standard error, and an exit status.

Rules: the text is the error's public sentence with its code and its next step, and nothing inner; a line ends with CR
LF where the client's terminal is raw. Exit statuses are ours to choose (RFC 4254 section 6.10 leaves them to the
server) and never change: 126 is the shell's "found, and not to be executed"; 254 lies outside what programs use, and
beside ssh's own 255 for a connection that failed.
"""

from __future__ import annotations

from typing import Final

from chalicelib.domain.errors import AccessError, TargetUnavailable
from chalicelib.domain.operation import Block

BLOCKED: Final = 126  # this command was refused; the connection lives
ENDED: Final = 254  # the session was refused, or ended by us
INTERNAL: Final = AccessError("the broker failed")
DRAINING: Final = "countersign: the broker is shutting down. Connect again."
NO_ROOM: Final = "countersign: too many channels are open (limited). Close one and try again."


def line(error: AccessError) -> str:
    """Return the one line of a refusal or an end, without its line's end. Pure."""
    return _line(error.code, error.public, error.next_step)


def blocked(block: Block, why: str) -> str:
    """Return the line of an operation that was refused; ``why`` is why it could not be read, if it could not. Pure."""
    unread = f" It was not read: {_sentence(why)}." if why else ""
    return f"countersign: blocked: {_sentence(block.public)} ({block.code}). {block.hint}{unread}".rstrip()


def waiting(notice: str) -> str:
    """Return the line of an operation that waits for people. Pure."""
    return f"countersign: {notice}"


def target_lost() -> str:
    return _line(TargetUnavailable.code, "the target closed the connection", TargetUnavailable.hint)


def refused_by_target(what: str) -> str:
    """Return the line of something that the target's own sshd did not do. Pure."""
    return f"countersign: the target refused {what}."


def not_offered(what: str) -> str:
    """Return the line of a feature of SSH that is refused here, whoever asks. Pure."""
    return f"countersign: {what} is not offered here."


def subsystem(name: str) -> str:
    """Return the line of a subsystem, with another way where there is one. Pure."""
    if name == "sftp":
        return "countersign: blocked: files are not transferred yet (policy_denied). `ssh TARGET cat FILE` shows one."
    return "countersign: blocked: subsystems are not offered here (policy_denied)."


def shown(text: str, *, raw: bool) -> bytes:
    """Return ``text`` as a line of bytes for a client whose terminal is ``raw`` or not. Pure."""
    return text.encode() + (b"\r\n" if raw else b"\n")


def _line(code: str, public: str, hint: str) -> str:
    return f"countersign: {_sentence(public)} ({code}). {hint}".rstrip()


def _sentence(text: str) -> str:
    return text.rstrip(".")
