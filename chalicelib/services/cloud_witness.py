"""The outside witness: CloudTrail's record of credentials that were made or read, against our connection rows.

Why: a row that was never put, or was taken away with all that names it, leaves nothing of ours. What ``mint`` does to
make a credential AWS records elsewhere: a signature with the key of ssh certificates, or the reading of a target's
secret. One without a connection is a credential that nobody can account for; a connection without one is a record of
what did not happen, or of a trail that is not whole.

Rules: every signature with that key and every reading of such a secret counts, *whoever* called, since the key and the
secret are what must not be used beside us; each takes one connection of that very credential that was opened within
``MAX_ROW_AGE`` before it, the oldest first. A call that AWS refused made nothing, and is counted apart. A role that was
assumed by ``mint``'s own session has no counterpart, since no credential of ours is made that way. A record that cannot
be read is a finding: it may be one of these. What this witness cannot see is part of the answer (``NOT_COVERED``).
A repeat of ours after a lost answer is a second call, and is told: with its time beside the first it is easily known.
Reads; writes nothing. Source: security.md, "A connection that never got a row"; ``domain.cloud_call``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from chalicelib.config.document import Document, read_document
from chalicelib.config.files import TARGETS, bundle_digest, decode_bundle
from chalicelib.config.model import read_model
from chalicelib.config.targets import TargetsFile
from chalicelib.domain.activation import bundle_key
from chalicelib.domain.archived_item import Rows
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.cloud_call import CloudCall, cloud_call
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import BadRequest, ConfigurationInvalid, Limited, NotFound
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.signoff import Period
from chalicelib.domain.target import CERTIFICATE
from chalicelib.services.mint import MAX_ROW_AGE
from chalicelib.services.reconcile import SKEW, never_reached, row_json

MAX_WITNESSES: Final = 200_000  # a day of two a second; more is read in pieces
DELIVERED_WITHIN: Final = timedelta(minutes=15)  # CloudTrail's own word for when a call is in its files
NOT_COVERED: Final = (
    "logins with RDS IAM tokens: they are signed where they are used, and no API is called",
    "what a secret that was read once is used for afterwards: the target's own log says it (reconcile TARGET --log)",
    "calls in other regions or accounts than those whose files were given",
    "whether the files are whole: `aws cloudtrail validate-logs` checks AWS's signatures on them",
)
_ARN: Final = re.compile(r"arn:[a-z-]{1,20}:secretsmanager:[a-z0-9-]{1,30}:\d{12}:secret:(?P<name>.{1,600})\Z")
_SUFFIX: Final = re.compile(r"-[A-Za-z0-9]{6}\Z")  # Secrets Manager's, at the end of an ARN


class Made(StrEnum):
    """What a call made or read."""

    SIGNATURE = "signature"
    SECRET = "secret"
    SECRETS = "secrets"  # several at once, which no code of ours does
    ROLE = "role"


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """One such call. ``what`` is the key or secret; ``credential`` what a row's must be, empty where none can be."""

    call: CloudCall
    made: Made
    what: str
    credential: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What makes credentials: ``of`` gives what may stand for a login of a target, over all bundles that were ever
    active; ``keys`` the ids of the keys that sign ssh certificates, ``secrets`` begin the names of targets' secrets,
    ``mint`` is the function's full name. ``unread`` are bundles that could not be read."""

    of: Mapping[tuple[str, str], frozenset[str]]
    keys: frozenset[str]
    secrets: str
    mint: str
    unread: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class Trail:
    """What was read of a trail. ``services`` counts the calls of each service; ``unreadable`` are places of records
    that are none."""

    witnesses: list[Witness] = field(default_factory=list)
    refused: list[Witness] = field(default_factory=list)
    services: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    first: datetime | None = None
    last: datetime | None = None
    records: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Accounted:
    """``matched`` are the pairs; ``strangers`` the credentials without a connection; ``unseen`` the connections of
    which the trail shows none, ``ended_before`` those that never reached their target; ``unknown`` those whose login is
    in no bundle."""

    period: Period
    matched: tuple[tuple[Witness, ConnectionRow], ...]
    strangers: tuple[Witness, ...]
    unseen: tuple[ConnectionRow, ...]
    ended_before: tuple[ConnectionRow, ...]
    unknown: tuple[ConnectionRow, ...]
    refused: tuple[Witness, ...]
    unreadable: tuple[str, ...]
    not_covered: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.strangers or self.unseen or self.unreadable)


def credentials_of(rows: Rows, objects: ReadObjects, *, keys: Iterable[str], prefix: str, mint: str) -> Credentials:
    """Return what makes credentials, by every bundle that an activation names. Raises StoreUnavailable."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    unread: list[str] = []
    states = rows.states("activations", list(rows.keys("activations")))
    for digest in sorted({str(state.document().get("bundle_digest", "")) for state in states.values()}):
        targets = _targets(objects, digest)
        if targets is None:
            unread.append(digest)
            continue
        for target in targets.domain().values():
            for principal in target.principals:
                found[target.name, principal.name].add(_credential(principal.credential))
    return Credentials(
        of={login: frozenset(names) for login, names in found.items()},
        keys=frozenset(keys),
        secrets=f"{prefix}/targets/",
        mint=mint,
        unread=tuple(unread),
    )


def read_trail(records: Iterable[tuple[str, object]], credentials: Credentials) -> Trail:
    """Return what ``records`` (each with its place) say of credentials; a record that is there twice counts once.

    Raises Limited past ``MAX_WITNESSES``. Pure.
    """
    trail = Trail()
    secrets = frozenset(name for names in credentials.of.values() for name in names) - {CERTIFICATE}
    seen: set[str] = set()
    for place, record in records:
        trail.records += 1
        try:
            call = cloud_call(record)
        except BadRequest:
            trail.unreadable.append(place)
            continue
        trail.services[call.service] = trail.services.get(call.service, 0) + 1
        trail.first, trail.last = min(trail.first or call.at, call.at), max(trail.last or call.at, call.at)
        witness = _witness(call, credentials, secrets)
        if witness is None or call.id in seen:
            continue
        seen.add(call.id)
        (trail.refused if call.code else trail.witnesses).append(witness)
        if len(seen) + len(trail.unreadable) > MAX_WITNESSES:
            raise Limited(f"the trail has more than {MAX_WITNESSES} credentials", hint="Give a shorter piece of it.")
    return trail


def account(period: Period, trail: Trail, rows: Iterable[ConnectionRow], credentials: Credentials) -> Accounted:
    """Return which credentials are accounted for by which connection. Pure."""
    left = sorted(rows, key=lambda row: (row.opened_at, row.id))
    of: dict[str, list[ConnectionRow]] = defaultdict(list)
    for row in left:
        for name in credentials.of.get((row.target, row.principal), ()):
            of[name].append(row)
    matched: list[tuple[Witness, ConnectionRow]] = []
    strangers: list[Witness] = []
    taken: set[str] = set()
    within = [one for one in trail.witnesses if period.holds(one.call.at)]
    for witness in sorted(within, key=lambda one: (one.call.at, one.call.id)):
        free = (one for one in of.get(witness.credential, ()) if one.id not in taken and _near(one, witness))
        found = next(free, None)
        if found is None:
            strangers.append(witness)
        else:
            taken.add(found.id)
            matched.append((witness, found))
    # What was opened a moment before the files end may be in the next one.
    due = [
        row for row in left if row.id not in taken and period.since <= row.opened_at < period.until - DELIVERED_WITHIN
    ]
    ended = [row for row in due if never_reached(row)]
    rest = [row for row in due if not never_reached(row)]
    known = [row for row in rest if (row.target, row.principal) in credentials.of]
    return Accounted(
        period=period,
        matched=tuple(matched),
        strangers=tuple(strangers),
        unseen=tuple(known),
        ended_before=tuple(ended),
        unknown=tuple(row for row in rest if row not in known),
        refused=tuple(one for one in trail.refused if period.holds(one.call.at)),
        unreadable=tuple(trail.unreadable),
        not_covered=tuple(_not_covered(trail, credentials)),
    )


def accounted_json(found: Accounted) -> dict[str, Json]:
    """Return it as JSON values. Pure."""
    return {
        "since": timestamp(found.period.since),
        "until": timestamp(found.period.until),
        "holds": found.holds,
        "matched": [
            {"call": _witness_json(one), "connection": row.id, "session": row.session_id} for one, row in found.matched
        ],
        "credentials_without_connection": [_witness_json(one) for one in found.strangers],
        "connections_without_credential": [row_json(row) for row in found.unseen],
        "ended_before_login": [row_json(row) for row in found.ended_before],
        "logins_of_no_bundle": [row_json(row) for row in found.unknown],
        "refused": [_witness_json(one) for one in found.refused],
        "unreadable_records": list(found.unreadable),
        "not_covered": list(found.not_covered),
    }


def _targets(objects: ReadObjects, digest: str) -> TargetsFile | None:
    try:
        files = decode_bundle(objects.get(bundle_key(digest)))
    except (NotFound, ConfigurationInvalid):
        return None
    if bundle_digest(files) != digest or TARGETS not in files:
        return None
    document = read_document(TARGETS, files[TARGETS])
    return read_model(TargetsFile, document)[0] if isinstance(document, Document) else None


def _witness(call: CloudCall, credentials: Credentials, secrets: frozenset[str]) -> Witness | None:
    match call.service, call.operation:
        case "kms", "Sign":
            named = call.text("keyId")
            ids = {one.rpartition("/")[2] for one in (named, *call.resources)}
            if not ids & credentials.keys:
                return None
            return Witness(call=call, made=Made.SIGNATURE, what=named, credential=CERTIFICATE)
        case "secretsmanager", "GetSecretValue":
            name = _credential(call.text("secretId"))
            if not _is_targets(name, credentials, secrets):
                return None
            return Witness(call=call, made=Made.SECRET, what=name, credential=_known(name, secrets))
        case "secretsmanager", "BatchGetSecretValue":
            return _batch(call, credentials, secrets)
        case "sts", "AssumeRole" if call.who.endswith(f"/{credentials.mint}"):
            return Witness(call=call, made=Made.ROLE, what=call.text("roleArn"), credential="")
        case _:
            return None


def _batch(call: CloudCall, credentials: Credentials, secrets: frozenset[str]) -> Witness | None:
    """Whoever reads by a filter may read any; whoever reads by a list is asked which."""
    asked = call.request.get("secretIdList")
    names = [_credential(one) for one in asked if isinstance(one, str)] if isinstance(asked, list) else None
    if names is not None and not any(_is_targets(name, credentials, secrets) for name in names):
        return None
    return Witness(call=call, made=Made.SECRETS, what=", ".join(names or ["by a filter"])[:512], credential="")


def _is_targets(name: str, credentials: Credentials, secrets: frozenset[str]) -> bool:
    return bool(_known(name, secrets)) or name.startswith(credentials.secrets)


def _known(name: str, secrets: frozenset[str]) -> str:
    return name if name in secrets else _without_suffix(name, secrets)


def _credential(reference: str) -> str:
    """Return the name in a reference: a bundle, and whoever calls, may give a secret's name or its ARN. Pure."""
    found = _ARN.match(reference)
    return found["name"] if found is not None else reference


def _without_suffix(name: str, secrets: frozenset[str]) -> str:
    """Return the secret that ``name`` is, where one of the two has the suffix of an ARN; else nothing. Pure."""
    bare = _SUFFIX.sub("", name)
    if bare in secrets:
        return bare
    return next((known for known in secrets if _SUFFIX.sub("", known) == name), "")


def _near(row: ConnectionRow, witness: Witness) -> bool:
    # CloudTrail has whole seconds, and each plane's clock may be off by as much as both refuse past.
    return row.opened_at - SKEW <= witness.call.at <= row.opened_at + MAX_ROW_AGE + SKEW


def _not_covered(trail: Trail, credentials: Credentials) -> Iterator[str]:
    kinds = {name for names in credentials.of.values() for name in names}
    if CERTIFICATE in kinds and not trail.services.get("kms"):
        yield "ssh certificates: the trail has no call of KMS at all, so it leaves KMS out"
    if kinds - {CERTIFICATE} and not trail.services.get("secretsmanager"):
        yield "passwords: the trail has no call of Secrets Manager at all"
    for digest in credentials.unread:
        yield f"the secrets that the bundle {digest[:12]} names: it cannot be read"
    yield from NOT_COVERED


def _witness_json(one: Witness) -> Mapping[str, Json]:
    return {
        "id": one.call.id,
        "at": timestamp(one.call.at),
        "made": one.made.value,
        "what": one.what,
        "by": one.call.who,
        "peer": one.call.peer,
        "code": one.call.code,
    }


def trail_period(trail: Trail) -> Sequence[datetime]:
    """Return the times of the first record and of a second past the last; nothing where there is none. Pure."""
    return () if trail.first is None or trail.last is None else (trail.first, trail.last + timedelta(seconds=1))
