"""A check: one question about a deployment, what was found, and what to do about it. And how all are asked at once.

Rules: what could not be looked at is said as that, and never taken for sound; a check ends within its time or counts as
one that could not look, so that one dead address holds up nothing; whatever a check raises is its own answer and stops
no other. Nothing here prints, and no text holds a secret: checks tell names, counts and codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError
from countersign.failures import Failure

# Of one check: three calls of AWS that each time out, or a name server's own patience.
WITHIN_S: Final = 30.0
_SIDE_BY_SIDE: Final = 12  # checks wait for the network: more of them than this would only be asked to wait by AWS
# What AWS's services say to whoever lacks the right, and botocore where nobody is logged in.
_NOT_ALLOWED: Final = frozenset(
    ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "NoCredentialsError")
)


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    WRONG = "wrong"
    UNKNOWN = "could not look"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One thing that was found: ``what`` it is and means, ``fix`` what to do (empty where nothing is to be done)."""

    status: Status
    what: str
    fix: str = ""


def ok(what: str) -> Told:
    return Told(status=Status.OK, what=what)


def warn(what: str, fix: str) -> Told:
    return Told(status=Status.WARN, what=what, fix=fix)


def wrong(what: str, fix: str) -> Told:
    return Told(status=Status.WRONG, what=what, fix=fix)


def unknown(what: str, fix: str) -> Told:
    return Told(status=Status.UNKNOWN, what=what, fix=fix)


def grouped(found: Iterable[tuple[str, Told]], of: str) -> list[Told]:
    """Return what was found of several things with one line for each kind: what ten tables have in common is said once.
    ``found`` is each thing's name and what is so of it, ``of`` the word before the names."""
    names: dict[Told, list[str]] = {}
    for name, told in found:
        names.setdefault(told, []).append(name)
    return [replace(told, what=f"{of} {', '.join(those)}: {told.what}") for told, those in names.items()]


Look: TypeAlias = Callable[[], Iterable[Told]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One question. ``look`` gives what it finds; what it raises becomes "could not look"."""

    name: str
    look: Look


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one check found, in its order."""

    name: str
    told: tuple[Told, ...]


def look_at_all(checks: Sequence[Check], clock: Clock, *, within_s: float = WITHIN_S) -> list[Result]:
    """Ask every check, side by side, and return what each found, in their order."""
    pool = ThreadPoolExecutor(max_workers=max(1, min(_SIDE_BY_SIDE, len(checks))), thread_name_prefix="doctor")
    rounds = -(-len(checks) // _SIDE_BY_SIDE)  # a check that waits for its turn has its own time left
    ends_s = clock.monotonic_s() + within_s * rounds
    try:
        asked = [(check, pool.submit(answer, check)) for check in checks]
        return [Result(name=check.name, told=_told(future, ends_s - clock.monotonic_s())) for check, future in asked]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _told(future: Future[tuple[Told, ...]], within_s: float) -> tuple[Told, ...]:
    try:
        return future.result(max(within_s, 0.01))
    except OutOfTime:
        return (unknown("there was no answer in time", "Is the network's way there open from this machine?"),)


def answer(check: Check) -> tuple[Told, ...]:
    """Return what ``check`` finds, and what stopped it where something did."""
    found: list[Told] = []
    try:
        found.extend(check.look())
    except ModuleNotFoundError:
        found.append(unknown("this needs more than the base install", "pip install 'countersign[audit]'"))
    except AccessError as error:
        found.append(_refused(error))
    except Failure as failure:
        found.append(unknown(failure.message, failure.hint))
    except OSError as error:
        found.append(unknown(f"no answer: {error.strerror or type(error).__name__}", "Try again; check the network."))
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide what the others found
        found.append(unknown(f"the check itself failed: {type(error).__name__}", "Tell us; the other checks hold."))
    return tuple(found)


def _refused(error: AccessError) -> Told:
    code = str(error.detail.get("error", ""))
    if code in _NOT_ALLOWED:
        return unknown(
            f"this caller may not look ({code})", "Use an operator's credentials (AWS_PROFILE), or ask an operator."
        )
    return unknown(error.public + (f" ({code})" if code else ""), error.next_step)
