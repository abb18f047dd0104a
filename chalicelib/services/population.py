"""The population of a review: every session of a period, with what shows that it is every one.

Rules: an index finds the ids, and every row is read by its key. Three witnesses that do not know each other are
compared with the rows: the manifests in the bucket, each of which names its session and connection; the numbers of the
connection rows, which each broker boot counts without holes; and the rows' own words on their manifests. What one has
and the others lack is a finding, of the whole period: a session that is gone no longer says on which target it was. The
population's digest covers what of a session never changes: so two people who look at the same period at different times
see the same digest, unless something came, went or was changed.

What it does not do: verify a signature (``review``), or see a session that was removed with all its rows, hops and
manifests: that takes the hourly digests (``verify``).
Source: RFC 9162 section 2.1.1 (the Merkle root).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Final, TypeVar

from chalicelib.domain.canonical import Json, canonical, digest, sha256_hex, timestamp
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import RowUnreadable
from chalicelib.domain.identifiers import SESSION_ID, SessionId, made_at
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.recording import merkle_root
from chalicelib.domain.session import Session
from chalicelib.domain.signoff import Period, Selection
from chalicelib.services.at_once import at_once
from chalicelib.services.reviewed import Finding, FindingKind, unreadable

A = TypeVar("A")
B = TypeVar("B")

POPULATION_VERSION: Final = 1
# A chain lives eight hours (``services.root``): no connection of a period belongs to a session that is a day older.
LOOK_BACK: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One session of a population, with its connections by id. ``sha256`` is over what never changes of them."""

    session: Session
    rows: tuple[ConnectionRow, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """The sessions of a period that were selected, by id. ``others`` is how many of the period were not; ``manifests``
    and ``connections`` are those of the whole period that were compared; ``unsealed``: of its members, connections
    without a manifest that had not ended; ``of_period``: the ids of all sessions of the period, selected or not."""

    period: Period
    selection: Selection
    members: tuple[Member, ...]
    others: int
    connections: int
    manifests: int
    unsealed: int
    of_period: frozenset[str]
    sha256: str
    findings: tuple[Finding, ...]


class ReadPopulation:
    """Reads populations. ``readers``: how many reads at once."""

    def __init__(self, stores: EvidenceStores, *, readers: int = 1) -> None:
        self._stores = stores
        self._readers = readers

    def __call__(self, period: Period, selection: Selection) -> Population:
        """Return the population. Idempotent, writes nothing. Raises StoreUnavailable."""
        findings: list[Finding] = []
        sessions = self._sessions(period, findings)
        rows = self._rows(sessions, findings)
        every = [row for found in rows.values() for row in found]
        within = [row for row in every if period.holds(row.opened_at)]
        listed = self._listed(period)
        findings += _unlisted(within, listed)
        findings += _unknown(period, listed, sessions, {(row.session_id, row.id) for row in every})
        findings += _unnumbered(within, every)
        of_period = [session for session in sessions if period.holds(session.created_at)]
        members = tuple(
            Member(session=session, rows=tuple(rows[session.id]), sha256=_leaf(session, rows[session.id]))
            for session in sorted(of_period, key=lambda session: session.id)
            if selection.holds(session)
        )
        return Population(
            period=period,
            selection=selection,
            members=members,
            others=len(of_period) - len(members),
            connections=len(within),
            manifests=len(listed),
            unsealed=sum(row.sealed_at is None for member in members for row in member.rows),
            of_period=frozenset(session.id for session in of_period),
            sha256=population_sha256(period, selection, [member.sha256 for member in members]),
            findings=tuple(findings),
        )

    def _sessions(self, period: Period, findings: list[Finding]) -> Sequence[Session]:
        days = list(period.days())
        lists = at_once(self._stores.sessions.created_on, [days[0] - LOOK_BACK, *days], self._readers)
        wanted = [session_id for listed in lists for session_id in listed if not _later(session_id, period)]
        found = self._read(wanted, findings)
        missing = set(wanted) - {session.id for session in found}
        findings += (
            _finding(session_id, FindingKind.MISSING, "has no row any more: an index names it")
            for session_id in sorted(missing - {SessionId(finding.key) for finding in findings})
        )
        return found

    def _read(self, wanted: Sequence[SessionId], findings: list[Finding]) -> Sequence[Session]:
        """Return the sessions. One whose row is nothing that we wrote is named, and hides no other."""
        get_many = self._stores.sessions.get_many
        try:
            return get_many(wanted)
        except RowUnreadable:
            read = at_once(lambda one: _or_unreadable(one, get_many, [one]), wanted, self._readers)
        findings += (found for found in read if isinstance(found, Finding))
        return [session for found in read if not isinstance(found, Finding) for session in found]

    def _rows(
        self, sessions: Sequence[Session], findings: list[Finding]
    ) -> Mapping[SessionId, Sequence[ConnectionRow]]:
        ids = [session.id for session in sessions]
        of_session = self._stores.connections.of_session
        read = at_once(lambda one: _or_unreadable(one, of_session, one), ids, self._readers)
        findings += (found for found in read if isinstance(found, Finding))
        return {one: () if isinstance(found, Finding) else found for one, found in zip(ids, read, strict=True)}

    def _listed(self, period: Period) -> Mapping[tuple[str, str], str]:
        """Return the manifests of connections that were opened on a day of the period, by session and connection."""
        prefixes = [f"manifests/v1/{day.isoformat()}/" for day in period.days()]
        found: dict[tuple[str, str], str] = {}
        for keys in at_once(self._stores.objects.keys, prefixes, self._readers):
            for key in keys:
                session_id, _, name = key.removeprefix("manifests/v1/").partition("/")[2].partition("/")
                found[session_id, name.removesuffix(".json")] = key
        return found


def population_sha256(period: Period, selection: Selection, leaves: Sequence[str]) -> str:
    """Return the digest of a population from the hashes of its members, by session id. Pure."""
    return digest(
        {
            "v": POPULATION_VERSION,
            "since": timestamp(period.since),
            "until": timestamp(period.until),
            "target": selection.target,
            "pipeline": selection.pipeline,
            "sessions": len(leaves),
            "merkle_root": merkle_root([bytes.fromhex(leaf) for leaf in leaves]).hex(),
        }
    )


def sample(population: Population, number: int, seed: str) -> tuple[Member, ...]:
    """Return ``number`` members, drawn so that anybody draws the same: ordered by SHA-256 of seed, line feed and
    session id, the first ones; in the population's own order. All of them where there are not more. Pure."""
    drawn = sorted(population.members, key=lambda member: sha256_hex(f"{seed}\n{member.session.id}".encode()))[:number]
    return tuple(sorted(drawn, key=lambda member: member.session.id))


def population_json(population: Population) -> dict[str, Json]:
    """Return the population as JSON values: every session with its hash, so that the digest can be made again. Pure."""
    return {
        "since": timestamp(population.period.since),
        "until": timestamp(population.period.until),
        "target": population.selection.target,
        "pipeline": population.selection.pipeline,
        "population_sha256": population.sha256,
        "sessions": len(population.members),
        "other_sessions": population.others,
        "connections_compared": population.connections,
        "manifests_compared": population.manifests,
        "unsealed": population.unsealed,
        "findings": [
            {"key": finding.key, "kind": finding.kind.value, "what": finding.what} for finding in population.findings
        ],
        "members": [member_json(member) for member in population.members],
    }


def member_json(member: Member) -> dict[str, Json]:
    session = member.session
    return {
        "session": session.id,
        "sha256": member.sha256,
        "txn": session.txn,
        "created_at": timestamp(session.created_at),
        "target": session.request.target,
        "principal": session.request.principal,
        "actor": session.actor.key,
        "originator": session.originator.key,
        "connections": [
            {"id": row.id, "manifest": row.manifest_key, "manifest_sha256": row.manifest_sha256} for row in member.rows
        ],
    }


def _leaf(session: Session, rows: Iterable[ConnectionRow]) -> str:
    """Return the hash of what never changes of a session once it is over: its status and secret are left out."""
    grant = session.grant
    return sha256_hex(
        canonical(
            {
                "session": session.id,
                "txn": session.txn,
                "created_at": timestamp(session.created_at),
                "actor": session.actor.key,
                "originator": session.originator.key,
                "leaf_hop": session.leaf_hop,
                "target": session.request.target,
                "principal": session.request.principal,
                "grant": "" if grant is None else grant.id,
                "ask": session.ask_id or "",
                "connections": [[row.id, row.sha256(), row.manifest_key, row.manifest_sha256] for row in rows],
            }
        )
    )


def _unlisted(within: Iterable[ConnectionRow], listed: Mapping[tuple[str, str], str]) -> Iterator[Finding]:
    for row in within:
        if row.manifest_key and listed.get((row.session_id, row.id)) != row.manifest_key:
            yield _finding(row.manifest_key, FindingKind.MISSING, f"is missing: the row of {row.id} names it")


def _unknown(
    period: Period,
    listed: Mapping[tuple[str, str], str],
    sessions: Iterable[Session],
    rows: set[tuple[SessionId, str]],
) -> Iterator[Finding]:
    """Give the manifests of sessions and connections that have no row."""
    known, told = {session.id for session in sessions}, set[str]()
    for (session_id, connection_id), key in listed.items():
        if not SESSION_ID.match(session_id):
            yield _finding(key, FindingKind.EXTRA, "is the manifest of nothing of ours")
        elif session_id not in known:
            if session_id not in told and not _later(session_id, period):
                yield _finding(session_id, FindingKind.MISSING, f"has no row: {key} names it")
            told.add(session_id)
        elif (SessionId(session_id), connection_id) not in rows:
            yield _finding(connection_id, FindingKind.MISSING, f"has no row in {session_id}: {key} names it")


def _unnumbered(within: Iterable[ConnectionRow], every: Iterable[ConnectionRow]) -> Iterator[Finding]:
    """Give the holes in the numbers of the period's rows, boot by boot: those at its edges may be of sessions that were
    asked for before or after it."""
    wanted, known = defaultdict[str, list[int]](list), defaultdict[str, set[int]](set)
    for row in every:
        known[row.boot].add(row.number)
    for row in within:
        wanted[row.boot].append(row.number)
    for boot, numbers in sorted(wanted.items()):
        span = sorted(number for number in known[boot] if min(numbers) <= number <= max(numbers))
        for before, after in pairwise(span):
            if after > before + 1:
                gone = f"connection {before + 1}" if after == before + 2 else f"connections {before + 1} to {after - 1}"
                yield _finding(boot, FindingKind.MISSING, f"has no row of its {gone}: the broker numbers them all")


def _or_unreadable(session_id: SessionId, read: Callable[[A], B], asked: A) -> B | Finding:
    try:
        return read(asked)
    except RowUnreadable as error:
        return unreadable(session_id, error)


def _later(session_id: str, period: Period) -> bool:
    return bool(SESSION_ID.match(session_id)) and made_at(session_id) >= period.until


def _finding(key: str, kind: FindingKind, what: str) -> Finding:
    return Finding(key=key, kind=kind, what=what)
