"""`countersign targets enroll NAME`: from now on only the service has a target's credential, and that is shown.

For operators, with rights of their own: the auditor's to read the active configuration, and to read and change the
secrets of targets (``store.secrets.SecretVersions``). PostgreSQL: each login's password is changed to one that nobody
has seen, and the former is shown to be refused. ssh: a session of the caller's own shows that the target takes our
certificate; --old-identity that it refuses what was used before. Exit codes: 0, or 1 where something is wrong or not
shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from chalicelib.domain.errors import AccessError, NotFound
from chalicelib.domain.target import CERTIFICATE, Principal, Protocol, Target
from countersign.commands.asking import Invocation
from countersign.commands.doctor import show
from countersign.commands.run import execute
from countersign.doctor.checks import Check, Result, Status, Told, answer, ok, unknown, wrong
from countersign.evidence_source import open_deployment
from countersign.failures import Exit, Failure, failure_of
from countersign.printable import safe_line

if TYPE_CHECKING:
    from countersign.enrolment.rotation import Versions

_LOOKS: Final = 'exec ssh "$1" id >&2'  # shows only something, and stdout is for the findings


def enroll(invocation: Invocation) -> int:
    """Return 0, or 1 where something is wrong or was not shown. Raises Failure, AccessError."""
    from chalicelib.services.active_bundle import active_bundle
    from chalicelib.store.secrets import SecretVersions

    stores = open_deployment(invocation.settings.inherited)
    targets = active_bundle(stores, invocation.clock).for_new_sessions().targets
    target = targets.get(invocation.options.name)
    if target is None:
        hint = "It is what targets.yaml of the active configuration calls it: add it there and push that first."
        raise Failure(Exit.USAGE, "the active configuration has no such target", hint=hint)
    logins = _logins(target, invocation.options.principal)
    versions = SecretVersions(stores.clients)
    if target.protocol is Protocol.POSTGRES:
        refuse_shared(targets.values(), target, logins)
        checks = [Check(name=login.name, look=partial(_postgres, versions, target, login)) for login in logins]
    elif target.protocol is Protocol.SSH:
        checks = [Check(name=login.name, look=partial(enroll_ssh, invocation, target, login)) for login in logins]
    else:
        raise Failure(Exit.USAGE, f"{target.protocol} targets have nothing to enroll yet")
    # One after the other: what a login's change finds may be a reason to stop the command before the next.
    results = [Result(name=check.name, told=answer(check)) for check in checks]
    show(results, invocation.output)
    # Not shown is not done: an operator who reads only the exit code must not take it for that.
    return Exit.DONE if all(_fine(one) for result in results for one in result.told) else Exit.WRONG


def refuse_shared(targets: Iterable[Target], target: Target, logins: Sequence[Principal]) -> None:
    """Raises Failure where another login, or another server, has a secret of ``logins``: to change it at one would lock
    us out of the other. Pure."""
    for login in logins:
        ours = (target.host, target.port, login.account)
        for other in targets:
            for theirs in other.principals:
                if theirs.credential == login.credential and (other.host, other.port, theirs.account) != ours:
                    raise Failure(
                        Exit.USAGE,
                        f"{login.name} shares its secret with {theirs.name} of {other.name}, which would be locked out",
                        hint="Give each login of each server a secret of its own in targets.yaml.",
                    )


def _logins(target: Target, name: str) -> Sequence[Principal]:
    if not name:
        return target.principals
    found = target.principal(name)
    if found is None:
        raise Failure(Exit.USAGE, "the target has no such login", hint="--principal is one of its principals.")
    return (found,)


def _postgres(versions: Versions, target: Target, login: Principal) -> Iterator[Told]:
    from countersign.enrolment.postgres import PostgresLogin
    from countersign.enrolment.rotation import rotate

    known = frozenset(principal.account for principal in target.principals)
    try:
        yield from rotate(versions, login.credential, PostgresLogin(target, login.account), known)
    except NotFound as error:
        yield wrong(f"{error.public}: {login.credential}", "Create it, with the password that the login has now.")
    except AccessError as error:
        code = safe_line(str(error.detail.get("error", error.detail.get("sqlstate", ""))), 40)
        yield wrong(f"{error.public}{f' ({code})' if code else ''}", failure_of(error).hint)


def enroll_ssh(invocation: Invocation, target: Target, login: Principal) -> Iterator[Told]:
    """Give what the target takes of us, and what it takes past us."""
    from countersign.enrolment.ssh import look_at_login

    yield _through_us(invocation, target, login)
    yield from look_at_login(target, login.account, invocation.options.old_identity, invocation.settings.inherited)


def _through_us(invocation: Invocation, target: Target, login: Principal) -> Told:
    """Open a session as this caller and run `id` in it: what the target takes then is what `mint` gave the broker."""
    asked = argparse.Namespace(
        target=target.name,
        principal=login.name,
        session="",
        reason=invocation.options.reason,
        duration="",
        wait=invocation.options.wait,
        idempotency_key="",
        command=["/bin/sh", "-c", _LOOKS, "sh", target.name],
    )
    what = "our certificate" if login.credential == CERTIFICATE else "the stored key"
    try:
        code = execute(replace(invocation, options=asked))
    except Failure as failure:
        return unknown(f"no session shows that the target takes {what}: {failure.message}", failure.hint)
    if code != 0:
        fix = "TrustedUserCAKeys there: GET /.well-known/ssh-target-ca.pub. And do the rules let you run `id`?"
        return wrong(f"a session through the broker ended with {code}, so nothing shows that it takes {what}", fix)
    return ok(f"a session through the broker logged in with {what}")


def _fine(told: Told) -> bool:
    return told.status in (Status.OK, Status.WARN)
