"""HourlyDigest: what there is of every kind of evidence, hour by hour, each naming the hash of the one before.

Why: a signature shows that a thing was not altered, and nothing shows that a thing is *missing*. A digest counts: how
many rows of every kind were made in its hour, with a Merkle root over them (RFC 9162 section 2.1.1), which recordings
were sealed, which are still open, and every object of the hour by its hash. It is made when there is nothing to count
too, so that a missing one is a finding.

Objects: ``digests/v1/YYYY-MM-DD/HH.json``, canonical JSON, signed with a key of its own purpose. A digest covers what
was archived under its own hour, and what came late under the ``LATE_DAYS`` before it and no digest has named. It also
says which code ran when it was made: so that a change of it, and a change back, stands between two signatures. Pure.

Versions: 1 counted the sixteen kinds of ``V1_KINDS`` and named no code; it verifies for ever as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from chalicelib.domain.archived_item import ArchivedItem, Change
from chalicelib.domain.canonical import Json, canonical, digest, sha256_hex, timestamp
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.recording import merkle_root

DIGEST_VERSION: Final = 2
DIGEST_SIGNATURE_TYPE: Final = "countersign-digest+jws"
DIGESTS: Final = "digests/v1"
HOUR: Final = timedelta(hours=1)
# No digest and no archived change is older than their format: whoever names one in the year 1 wants every hour since
# then to be looked at.
FIRST_HOUR: Final = datetime(2026, 1, 1, tzinfo=UTC)
LATE_DAYS: Final = 2  # a stream keeps a record for 24 hours, so nothing is archived later than a day
# An hour is over for good once Lambda's batching window and a few tries have passed.
SETTLED: Final = timedelta(minutes=10)
_ITEM: Final = re.compile(r"items/v1/[a-z]{1,32}/(\d{4}-\d\d-\d\d)/(\d\d)/[0-9a-z]{26}\.ndjson\.gz\Z")
_EVENT: Final = re.compile(r"events/v1/date=(\d{4}-\d\d-\d\d)/hour=(\d\d)/[^/]{1,200}\Z")
_DATED: Final = re.compile(r"(?:boots|signoffs|copies|holds)/v1/(\d{4}-\d\d-\d\d)()/.{1,400}\Z")
_MANIFEST: Final = re.compile(r"manifests/v1/[0-9A-Za-z_./-]{1,200}\Z")
_DIGEST: Final = re.compile(r"digests/v1/(\d{4}-\d\d-\d\d)/(\d\d)\.json\Z")


class Kind(StrEnum):
    """What is counted. Permanent words."""

    HOPS = "hops"
    SESSIONS = "sessions"
    CONNECTIONS = "connections"
    ASKS = "asks"
    ANSWERS = "answers"
    USES = "uses"
    REVOCATIONS = "revocations"
    ACTIVATIONS = "activations"
    TICKETS = "tickets"  # made and redeemed
    TOKENS = "tokens"  # of issuers, used up
    CREDENTIALS = "credentials"  # minted, one a connection
    MANIFESTS = "manifests"  # by the rows that were sealed with them
    ITEM_OBJECTS = "item_objects"
    EVENT_OBJECTS = "event_objects"
    BOOTS = "boots"  # of brokers that ended in order
    SIGNOFFS = "signoffs"  # of access reviews
    COPIES = "copies"  # of evidence, that were vouched for
    HOLDS = "holds"  # legal ones, and their lifts


V1_KINDS: Final = frozenset(
    {Kind.HOPS, Kind.SESSIONS, Kind.CONNECTIONS, Kind.ASKS, Kind.ANSWERS, Kind.USES, Kind.REVOCATIONS}
    | {Kind.ACTIVATIONS, Kind.TICKETS, Kind.TOKENS, Kind.CREDENTIALS, Kind.MANIFESTS, Kind.ITEM_OBJECTS}
    | {Kind.EVENT_OBJECTS, Kind.BOOTS, Kind.SIGNOFFS}
)
_KINDS: Final[Mapping[int, frozenset[Kind]]] = {1: V1_KINDS, DIGEST_VERSION: frozenset(Kind)}

_OF_TABLE: Final[Mapping[str, Kind]] = {
    "chains": Kind.HOPS,
    "sessions": Kind.SESSIONS,
    "connections": Kind.CONNECTIONS,
    "asks": Kind.ASKS,
    "answers": Kind.ANSWERS,
    "uses": Kind.USES,
    "activations": Kind.ACTIVATIONS,
}
_OF_CLAIM: Final[Mapping[str, Kind]] = {
    "ticket": Kind.TICKETS,
    "redeemed": Kind.TICKETS,
    "token": Kind.TOKENS,
    "mint": Kind.CREDENTIALS,
}


# Objects that are put once by somebody else, by what their keys begin with before the date.
OBJECT_KINDS: Final[Mapping[str, Kind]] = {
    "events/v1/date=": Kind.EVENT_OBJECTS,
    "boots/v1/": Kind.BOOTS,
    "signoffs/v1/": Kind.SIGNOFFS,
    "copies/v1/": Kind.COPIES,
    "holds/v1/": Kind.HOLDS,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How many of a kind, and the Merkle root over them in the order in which they are counted, in hexadecimal."""

    count: int
    root: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """An object and the hash that stands for it: of its bytes; of a manifest what is signed of it."""

    key: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HourlyDigest:
    """One hour. ``opened`` are the sessions that were made, ``sealed`` the connections that were sealed, ``unsealed``
    those that were open at its end, as ``SESSION/CONNECTION``. ``objects`` are those of ``OBJECT_KINDS``,
    ``unreadable`` the item objects that hold something else than we write. ``code`` is what ran when this was made: the
    SHA-256 of each function's package, and the digest of each running container's image, in hexadecimal, by name."""

    hour: datetime
    previous_sha256: str
    made_at: datetime
    kinds: Mapping[Kind, Tally]
    items: tuple[Listed, ...]
    objects: tuple[Listed, ...]
    manifests: tuple[Listed, ...]
    opened: tuple[str, ...]
    sealed: tuple[str, ...]
    unsealed: tuple[str, ...]
    unreadable: tuple[str, ...]
    code: Mapping[str, str] = field(default_factory=dict)
    version: int = DIGEST_VERSION
    signature: str = ""

    @property
    def key(self) -> str:
        return digest_key(self.hour)

    def counted(self) -> Mapping[str, Json]:
        """Return what follows from the archive and the digest before, alone."""
        return {
            "kinds": {kind.value: {"count": tally.count, "root": tally.root} for kind, tally in self.kinds.items()},
            "items": _told(self.items),
            "objects": _told(self.objects),
            "manifests": _told(self.manifests),
            "opened": list(self.opened),
            "sealed": list(self.sealed),
            "unsealed": list(self.unsealed),
            "unreadable": list(self.unreadable),
        }

    def signed(self) -> Mapping[str, Json]:
        """Return exactly what the signature covers."""
        code: Mapping[str, Json] = {} if self.version == 1 else {"code": dict(self.code)}
        return {
            "v": self.version,
            "hour": timestamp(self.hour),
            "previous_sha256": self.previous_sha256,
            "made_at": timestamp(self.made_at),
            **code,
            **self.counted(),
        }

    def sha256(self) -> str:
        return digest(self.signed())

    def stored(self) -> bytes:
        """Return the object's bytes. Their SHA-256 is what the next digest names."""
        return canonical({**self.signed(), "signature": self.signature})


@dataclass(frozen=True, kw_only=True, slots=True)
class Archived:
    """What was archived and no digest has named yet: objects with their hashes, and the changes in the item objects."""

    items: tuple[Listed, ...]
    objects: tuple[Listed, ...]
    changes: tuple[ArchivedItem, ...]
    unreadable: tuple[str, ...]


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def last_settled_hour(now: datetime) -> datetime:
    """Return the last hour of which nothing more is to be expected. Pure."""
    return hour_of(now - SETTLED) - HOUR


def digest_key(hour: datetime) -> str:
    moment = timestamp(hour)
    return f"{DIGESTS}/{moment[:10]}/{moment[11:13]}.json"


def digest_hour(key: str) -> datetime | None:
    """Return the hour that a digest's key names; None where it is no such key. Pure."""
    return _hour(_DIGEST, key)


def archived_hour(key: str) -> datetime | None:
    """Return the hour under which an object that digests list lies, the first of its day where its key has none; None
    where it is no such key. Pure."""
    return _hour(_ITEM, key) or _hour(_EVENT, key) or _hour(_DATED, key)


def late_dates(hour: datetime) -> tuple[str, ...]:
    """Return the dates under which the digest of ``hour`` looks for objects. Pure."""
    return tuple(timestamp(hour - timedelta(days=days))[:10] for days in range(LATE_DAYS, -1, -1))


def earliest_named(hour: datetime) -> datetime:
    """Return the first hour whose digest may have named an object that the digest of ``hour`` comes upon. Pure."""
    return (hour - timedelta(days=LATE_DAYS)).replace(hour=0)


def object_kind(key: str) -> Kind:
    """Return the kind of an object that is none of ours to write. Raises ValueError on any other key. Pure."""
    for prefix, kind in OBJECT_KINDS.items():
        if key.startswith(prefix):
            return kind
    raise ValueError("no object of any kind that is counted")


def kind_of(change: ArchivedItem) -> Kind | None:
    """Return the kind that a change makes one more of; None where it makes none. Pure."""
    if change.change is not Change.INSERT:
        return None
    if change.table == "revocations":  # a revocation is three rows: its place in the feed is what is counted
        return Kind.REVOCATIONS if str(change.keys().get("id", "")).startswith("feed#") else None
    if change.table == "once":
        return _OF_CLAIM.get(str(change.state.rest().get("kind", "")))
    return _OF_TABLE.get(change.table)


def sealed_manifest(change: ArchivedItem) -> tuple[str, Listed | None] | None:
    """Return the connection that a change sealed and the manifest that it names, if one; None for other changes. The
    sweeper's manifests are sealed into rows as a broker's are. Pure."""
    if change.table != "connections":
        return None
    doc = change.state.document()
    if doc.get("sealed_at") is None:
        return None
    key, sha256 = str(doc.get("manifest_key", "")), str(doc.get("manifest_sha256", ""))
    return _connection(change), Listed(key=key, sha256=sha256) if _MANIFEST.match(key) else None


def digest_of(
    hour: datetime,
    previous: HourlyDigest | None,
    archived: Archived,
    *,
    previous_sha256: str,
    made_at: datetime,
    code: Mapping[str, str] | None = None,
    version: int = DIGEST_VERSION,
) -> HourlyDigest:
    """Return the unsigned digest of ``hour``. The same archive and digest before give the same counts. Pure."""
    changes = _once_each(archived.changes)
    seals = [found for change in changes if (found := sealed_manifest(change)) is not None]
    sealed = dict.fromkeys(connection for connection, _ in seals)
    manifests = tuple(dict.fromkeys(listed for _, listed in seals if listed is not None))
    open_before = () if previous is None else previous.unsealed
    opened = [_connection(change) for change in changes if kind_of(change) is Kind.CONNECTIONS]
    leaves: dict[Kind, list[bytes]] = {kind: [] for kind in Kind}
    for change in changes:
        kind = kind_of(change)
        if kind is not None:
            leaves[kind].append(change.leaf())
    leaves[Kind.MANIFESTS] = [_object_leaf(one) for one in manifests]
    leaves[Kind.ITEM_OBJECTS] = [_object_leaf(one) for one in archived.items]
    for listed in archived.objects:
        leaves[object_kind(listed.key)].append(_object_leaf(listed))
    return HourlyDigest(
        hour=hour,
        previous_sha256=previous_sha256,
        made_at=made_at,
        kinds={
            kind: Tally(count=len(found), root=merkle_root(found).hex())
            for kind, found in leaves.items()
            if kind in _KINDS[version]
        },
        items=archived.items,
        objects=archived.objects,
        manifests=manifests,
        opened=tuple(str(change.keys().get("id", "")) for change in changes if kind_of(change) is Kind.SESSIONS),
        sealed=tuple(sealed),
        unsealed=tuple(one for one in dict.fromkeys((*open_before, *opened)) if one not in sealed),
        unreadable=archived.unreadable,
        code=dict(code or {}),
        version=version,
    )


def _object_leaf(listed: Listed) -> bytes:
    """Return the leaf of a listed object: its key and hash, so that two objects cannot change places. Pure."""
    return bytes.fromhex(sha256_hex(canonical([listed.key, listed.sha256])))


def parse_digest(stored: bytes) -> HourlyDigest:
    """Return the digest that an object holds. Raises ProofInvalid where it is not one, byte for byte. Pure."""
    try:
        said = json.loads(stored)
        found = HourlyDigest(
            hour=datetime.fromisoformat(said["hour"]),
            previous_sha256=said["previous_sha256"],
            made_at=datetime.fromisoformat(said["made_at"]),
            kinds={Kind(name): Tally(count=one["count"], root=one["root"]) for name, one in said["kinds"].items()},
            items=_listed(said["items"]),
            objects=_listed(said["objects"]),
            manifests=_listed(said["manifests"]),
            opened=_texts(said["opened"]),
            sealed=_texts(said["sealed"]),
            unsealed=_texts(said["unsealed"]),
            unreadable=_texts(said["unreadable"]),
            code={str(name): str(sha256) for name, sha256 in said.get("code", {}).items()},
            version=said["v"],
            signature=said["signature"],
        )
        same = found.stored() == stored
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProofInvalid("is not a digest") from error
    kinds = _KINDS.get(found.version, frozenset())
    if not same or not isinstance(found.signature, str) or not kinds or set(found.kinds) != kinds:
        raise ProofInvalid("is not what the service wrote")
    return found


def _once_each(changes: Sequence[ArchivedItem]) -> list[ArchivedItem]:
    """A batch that two deliveries archived in parallel is in two objects: the same change counts once."""
    return list({change.line(): change for change in changes}.values())


def _connection(change: ArchivedItem) -> str:
    keys = change.keys()
    return f"{keys.get('session', '')}/{keys.get('id', '')}"


def _told(listed: Iterable[Listed]) -> Json:
    return [{"key": one.key, "sha256": one.sha256} for one in listed]


def _listed(said: Any) -> tuple[Listed, ...]:
    return tuple(Listed(key=str(one["key"]), sha256=str(one["sha256"])) for one in said)


def _texts(said: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in said)


def _hour(pattern: re.Pattern[str], key: str) -> datetime | None:
    found = pattern.match(key)
    if found is None:
        return None
    try:
        hour = datetime.fromisoformat(f"{found[1]}T{found[2] or '00'}:00:00+00:00")
    except ValueError:
        return None
    return hour if hour >= FIRST_HOUR else None
