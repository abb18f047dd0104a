"""`countersign review sign --since WHEN --until WHEN --digest SHA256`: sign the review of a period off, in person.

As somebody who logged in (`countersign login`), at the service, which reads the population again, refuses whoever has a
part in it, and signs. Each identity is kept or revoked: by name, or all others with `--keep-others`. What is signed as
revoked is then revoked, one identity at a time, by the rules that hold for that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from countersign.api import text_of
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.periods import period_of
from countersign.printable import counted, moment, safe_line
from countersign.service import Service

_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


def review_sign(invocation: Invocation) -> int:
    """Return 0 once it is signed and every identity that was to be revoked is. Raises Failure: refused, or signed and
    not all revoked, which says which."""
    from chalicelib.domain.canonical import timestamp

    options, output = invocation.options, invocation.output
    if not (options.since and options.until):
        raise Failure(Exit.USAGE, "say which period: --since and --until, as the review showed them")
    if not _DIGEST.match(options.digest):
        raise Failure(Exit.USAGE, "--digest is the population's, 64 characters, as the review showed it")
    if not (options.keep or options.revoke or options.keep_others):
        raise Failure(Exit.USAGE, "decide of each identity: --keep, --revoke, --keep-others")
    period = period_of(options.since, options.until, invocation.clock.now())
    service = invocation.service()
    body = {
        "since": timestamp(period.since),
        "until": timestamp(period.until),
        "target": options.target,
        "pipeline": options.pipeline,
        "population_sha256": options.digest,
        "keep": options.keep,
        "revoke": options.revoke,
        "keep_others": options.keep_others,
        "note": options.note,
    }
    told = service.post("/v1/signoffs", body, repeatable=False).body
    signoff, revoked, kept = text_of(told, "id"), _texts(told.get("revoked")), told.get("kept")
    if not signoff or not isinstance(kept, int) or revoked is None:
        raise Failure(
            Exit.UNREACHABLE, "the service's answer makes no sense", hint="Look: countersign review --population"
        )
    output.line(f"{output.paint('signed', 'green')}  {safe_line(signoff)}  {moment(text_of(told, 'signed_at'))}")
    output.line(f"  by {safe_line(text_of(told, 'reviewer'))}, of {told.get('sessions')} sessions")
    output.line(f"  {counted(kept, 'identity', 'identities')} kept, {len(revoked)} revoked")
    if told.get("unknown_triggers"):
        output.say(f"of {told['unknown_triggers']} sessions nobody knows who is behind the run; the sign-off says so")
    failed = _revoke(service, signoff, revoked, invocation)
    output.result({**told, "not_revoked": failed})
    if failed:
        raise Failure(
            Exit.DENIED,
            f"it is signed, and {counted(len(failed), 'identity was', 'identities were')} not revoked",
            hint=f"countersign revoke --kind identity '{failed[0]}' --why 'review {signoff}'",
        )
    return Exit.DONE


def _revoke(service: Service, signoff: str, revoked: Sequence[str], invocation: Invocation) -> list[str]:
    failed: list[str] = []
    for identity in revoked:
        body = {"kind": "identity", "id": identity, "why": f"not kept by the access review {signoff}"}
        try:
            service.post("/v1/revocations", body, repeatable=True)
        except Failure as failure:
            invocation.output.say(f"{identity} was not revoked: {failure.message}")
            failed.append(identity)
        else:
            invocation.output.line(f"  {invocation.output.paint('revoked', 'red')}  {safe_line(identity)}")
    return failed


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return None
    return value
