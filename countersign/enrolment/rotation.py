"""In which order a login's password is changed, so that no moment loses it, and what is shown after.

The new password is put beside the present one, set at the target, tried there, and only then made the current one: a
run that dies anywhere is finished by the next, which finds what was proposed and tries it. Of two runs at once one
fails, and no password is lost. Between the change and the promotion, two round trips, a connection that opens gets the
former password and is refused by the target; open ones go on.

A target that takes any password (``trust`` in pg_hba.conf) is left as it is: what is tried there shows nothing. Every
run makes two logins that the target must refuse, and its log and ours tell of them.

What it does not do: speak a protocol (``postgres``), or print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from chalicelib.domain.errors import AccessError
from chalicelib.domain.secret import Secret
from chalicelib.domain.verifier import Verifier, new_session_secret, verifier_of
from chalicelib.store.secrets import SecretVersion
from countersign.doctor.checks import Told, ok, warn, wrong
from countersign.printable import counted, safe_line

_MOST_NAMED: Final = 20  # of a line for people; the count says how many there are
_AGAIN: Final = "Run it again when that is mended: it goes on where it stopped, and no password is lost."


class Versions(Protocol):
    """``chalicelib.store.secrets.SecretVersions``."""

    def current(self, reference: str) -> SecretVersion: ...
    def pending(self, reference: str) -> SecretVersion | None: ...
    def propose(self, reference: str, value: Secret) -> SecretVersion: ...
    def promote(self, reference: str, version: SecretVersion, before: SecretVersion) -> None: ...


class TargetLogin(Protocol):
    """One login at one target. Every method raises TargetUnavailable where the target said neither yes nor no."""

    def takes(self, password: Secret) -> bool:
        """Whether the target lets this login in by ``password``; False only where it refused the password."""
        ...

    def change(self, present: Secret, verifier: Verifier) -> None:
        """Log in by ``present`` and set the password that ``verifier`` is of, which is not told to the target."""
        ...

    def others(self, present: Secret) -> Sequence[str]:
        """Return the other logins that the target has, as it says to this one."""
        ...


def rotate(
    versions: Versions,
    reference: str,
    login: TargetLogin,
    known: frozenset[str],
    *,
    new: Callable[[], Secret] = new_session_secret,
) -> Iterator[Told]:
    """Change the password of ``login``, which the store has under ``reference``, and give what was done and found.
    ``known`` are the logins of this target that go through us. Whatever AccessError it raises, another run goes on."""
    if login.takes(new()):
        fix = "Correct pg_hba.conf there (scram-sha-256 in the place of trust), then run it again."
        yield wrong("the target takes any password from here, so nothing was changed: none protects it", fix)
        return
    before = versions.current(reference)
    fresh, told = _proposed(versions, reference, login, before, new)
    if told is not None:
        yield told
    if fresh is None:
        return
    versions.promote(reference, fresh, before)
    yield ok("its password was changed, and the new one logs in")
    yield _former(login, before.value)
    yield from _others(login, fresh.value, known)


def _proposed(
    versions: Versions, reference: str, login: TargetLogin, before: SecretVersion, new: Callable[[], Secret]
) -> tuple[SecretVersion | None, Told | None]:
    """Return the version that the target takes and the store has not as its current one, None where there is none; and
    what is to be said of it."""
    pending = versions.pending(reference)
    if pending is not None and pending.id != before.id and login.takes(pending.value):
        return pending, ok("an earlier run had changed its password and was cut off: this one goes on from there")
    if not login.takes(before.value):
        fix = "Set it at the target by hand (ALTER ROLE ... PASSWORD), put it into the secret, then run it again."
        return None, wrong("the target refuses the password that the secret store has: nothing was changed", fix)
    fresh = versions.propose(reference, new())
    try:
        login.change(before.value, verifier_of(fresh.value))
        if login.takes(fresh.value):
            return fresh, None
    except AccessError as error:
        code = safe_line(str(error.detail.get("sqlstate", "")), 8)
        return None, wrong(f"the change was cut off: {error.public}{f' ({code})' if code else ''}", _AGAIN)
    return None, wrong("the target refuses the new password, so the former one stays the current one", _AGAIN)


def _former(login: TargetLogin, former: Secret) -> Told:
    try:
        taken = login.takes(former)
    except AccessError as error:
        return wrong(f"it is not shown that the former password is refused: {error.public}", "Run it again.")
    if taken:
        fix = "Another server answers there too, or the change was undone. Find out before anybody uses the target."
        return wrong("THE FORMER PASSWORD STILL LOGS IN", fix)
    return ok("the former password is refused")


def _others(login: TargetLogin, present: Secret, known: frozenset[str]) -> Iterator[Told]:
    found = [name for name in login.others(present) if name.partition(" ")[0] not in known]
    if not found:
        yield ok("the target has no other login")
        return
    shown = [safe_line(name, 80) for name in found[:_MOST_NAMED]]
    more = [f"{len(found) - _MOST_NAMED} more"] if len(found) > _MOST_NAMED else []
    what = f"{counted(len(found), 'other login')} may come past us: {', '.join(shown + more)}"
    yield warn(what, "Take LOGIN from those that nobody needs, or let pg_hba.conf have the broker's addresses alone.")
