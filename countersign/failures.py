"""How a command ends without doing its job: one exception, and the exit codes that scripts may rely on.

The numbers are those of BSD's ``sysexits.h`` where it has one (64, 65, 69, 70, 75, 77), so that they are unlikely to
be the started command's own. Each refusal's *kind* (the class in ``chalicelib.domain.errors``) has one exit code, and
the table is whole: a test walks every class.

What it does not do: print. ``countersign.output`` renders a Failure once, at the end.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from chalicelib.domain import errors


class Exit(IntEnum):
    """What the exit code says when it is not the started command's own."""

    DONE = 0
    WRONG = 1  # `doctor`, `targets enroll`: something is to be put right, and it was said what
    USAGE = 64  # EX_USAGE: the call itself is wrong and must be changed
    INVALID = 65  # EX_DATAERR: what was read does not hold: a bundle with faults, a review that does not verify
    UNREACHABLE = 69  # EX_UNAVAILABLE: no answer, or none that makes sense; nothing was granted
    INTERNAL = 70  # EX_SOFTWARE: a fault of ours
    PENDING = 75  # EX_TEMPFAIL: people have not answered yet; the id to resume is printed
    DENIED = 77  # EX_NOPERM: refused by a rule, a person, or for want of an identity
    UNANCHORED = 78  # EX_CONFIG: it verifies, by keys that nobody vouched for but whoever showed it
    NOT_EXECUTABLE = 126  # what POSIX shells answer for a command that is there and cannot be run
    NOT_FOUND = 127  # ... and for one that is not there
    INTERRUPTED = 130  # 128 + SIGINT


class Failure(Exception):
    """The command cannot go on. ``message`` and ``hint`` are for people; ``code`` is stable, of ``docs/errors.md``."""

    def __init__(
        self,
        exit_code: Exit,
        message: str,
        *,
        hint: str = "",
        code: str = "",
        request_id: str = "",
        session_id: str = "",
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.hint = hint
        self.code = code
        self.request_id = request_id
        self.session_id = session_id


# First match wins, so a class stands before its ancestors. Conflict asks for another call, like a bad request.
_EXIT_OF_KIND: Final[tuple[tuple[type[errors.AccessError], Exit], ...]] = (
    (errors.Denied, Exit.DENIED),
    (errors.Unauthenticated, Exit.DENIED),
    (errors.NotFound, Exit.DENIED),  # an unknown target and a forbidden one look the same
    (errors.BadRequest, Exit.USAGE),
    (errors.Conflict, Exit.USAGE),
    (errors.ConfigurationInvalid, Exit.UNREACHABLE),
    (errors.Limited, Exit.UNREACHABLE),
    (errors.TargetUnavailable, Exit.UNREACHABLE),
    (errors.StoreUnavailable, Exit.UNREACHABLE),
    (errors.RecordingUnavailable, Exit.UNREACHABLE),
    (errors.ProtocolViolation, Exit.UNREACHABLE),
    (errors.AccessError, Exit.UNREACHABLE),
)
_KIND_OF_CODE: Final = {kind.code: kind for kind in errors.leaf_errors()}


def exit_of(code: str, status: int) -> Exit:
    """Return the exit code for a refusal with our ``code``; where that is unknown (API Gateway's own answers, a newer
    service) for its HTTP ``status``. Pure."""
    kind = _KIND_OF_CODE.get(code)
    if kind is not None:
        return next(exit_code for known, exit_code in _EXIT_OF_KIND if issubclass(kind, known))
    if status in {401, 403, 404}:
        return Exit.DENIED
    if 400 <= status < 500 and status not in {408, 429}:
        return Exit.USAGE
    return Exit.UNREACHABLE


def failure_of(error: errors.AccessError) -> Failure:
    """Return the Failure for a refusal that happened in this process."""
    return Failure(exit_of(error.code, 0), error.public, hint=_hint_here(error), code=error.code)


def _hint_here(error: errors.AccessError) -> str:
    """Return what to do next at a terminal that reads the deployment itself, where the error's own general words speak
    to a client of the service."""
    if error.next_step == errors.NotFound.hint:
        return "Check the id."
    if error.next_step == errors.StoreUnavailable.hint:
        return (
            "Does this shell hold credentials of AWS that may do it (the role auditor; an operator's for `keys` and "
            "`restore-epoch`)? Else try again in a minute."
        )
    return error.next_step
