"""Sign off: a person says that they reviewed every session of a period, and which identities are kept or revoked.

Rules: the reviewer is a person who logged in themselves, with a key, whom ``approvers.yaml`` knows; and nobody who is
in what they review: who acted in any of it, who is behind any run of it, who answered for any of it. What was shown to
them is what they sign: the population is read again here, and its digest must be the one that they name. The hops are
verified, since a row could be made to name nobody. A decision is made of every identity, or all others are kept in so
many words. A period that is not over, or in which something is missing, is not signed off.

What it does not do: review for anybody, or revoke (``POST /v1/revocations``: the command line does it next).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import canonical
from chalicelib.domain.chain import Chain
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import (
    AccessError,
    BadRequest,
    Conflict,
    Limited,
    NotPermitted,
    ReviewerNotEligible,
)
from chalicelib.domain.identifiers import PersonId, Txn, new_signoff_id
from chalicelib.domain.identity import Assurance, Identity, Person
from chalicelib.domain.session import Session
from chalicelib.domain.signoff import Period, Ruling, Selection, Signoff, signoff_key
from chalicelib.domain.store import Signer, Stores
from chalicelib.identity.jws import sign_signoff
from chalicelib.services.access import CHAIN_REVIEW
from chalicelib.services.at_once import at_once
from chalicelib.services.evidence import Evidence
from chalicelib.services.identify import Caller
from chalicelib.services.permitted import permits
from chalicelib.services.population import Population, ReadPopulation

WHAT: Final = "signoff"  # ``context.what`` of the question whether the reviewer may
MAX_SESSIONS: Final = 2000  # with their chains verified this takes some of the 18 s that the function has
MAX_NOTE: Final = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class SignoffWanted:
    """What the reviewer says: of which population (its digest), and what becomes of each identity (by key)."""

    period: Period
    selection: Selection
    population_sha256: str
    keep: tuple[str, ...]
    revoke: tuple[str, ...]
    keep_others: bool
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Involved:
    """Who has a part in a population. ``people`` are ids; ``actors`` are keys to identities, in order."""

    people: frozenset[PersonId]
    aliases: frozenset[str]
    actors: Mapping[str, Identity]
    unknown_triggers: int


class SignOff:
    """Signs reviews off. ``readers``: how many reads at once."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        stores: Stores,
        evidence: Evidence,
        signer: Signer,
        clock: Clock,
        audit: AuditLog,
        readers: int = 1,
    ) -> None:
        self._bundles = bundles
        self._stores = stores
        self._evidence = evidence
        self._signer = signer
        self._clock = clock
        self._audit = audit
        self._readers = readers

    def __call__(self, caller: Caller, wanted: SignoffWanted) -> Signoff:
        """Return the sign-off, stored and audited. Not idempotent: signed twice is two facts.

        Raises ReviewerNotEligible, NotPermitted, BadRequest, Conflict, Limited, ProofInvalid, StoreUnavailable,
        ConfigurationInvalid. What is refused is audited too.
        """
        try:
            signed = self._signed(caller, wanted)
            key = signoff_key(signed.id, signed.signed_at)
            body = canonical({**signed.signed(), "signature": signed.signature})
            self._stores.objects.put_new(key, body, content_type="application/json")
        except AccessError as error:
            self._record(AuditName.SIGNOFF_REFUSED, caller, wanted, subject="", code=error.code)
            raise
        self._record(AuditName.REVIEW_SIGNED, caller, wanted, subject=signed.id, code="")
        return signed

    def _signed(self, caller: Caller, wanted: SignoffWanted) -> Signoff:
        bundle, now = self._bundles.current(), self._clock.now()
        reviewer = _reviewer(bundle, caller)
        if permits(bundle, caller, CHAIN_REVIEW, WHAT, now) is None:
            raise NotPermitted("no rule permits this person to sign a review off")
        _check(wanted)
        if wanted.period.until > now:
            raise BadRequest("until is not over yet", hint="Sign off what has ended.")
        population = self._population(wanted)
        involved = self._involved(bundle, population)
        _require_outside(reviewer, caller, involved)
        unsigned = Signoff(
            id=new_signoff_id(now),
            reviewer=reviewer.id,
            reviewer_identity=caller.actor.key,
            hop=caller.chain.leaf.id,
            period=wanted.period,
            selection=wanted.selection,
            population_sha256=population.sha256,
            sessions=len(population.members),
            unknown_triggers=involved.unknown_triggers,
            rulings=_rulings(involved.actors, wanted),
            note=wanted.note,
            signed_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
        )
        return sign_signoff(self._signer, unsigned)

    def _population(self, wanted: SignoffWanted) -> Population:
        population = ReadPopulation(self._stores, readers=self._readers)(wanted.period, wanted.selection)
        if len(population.members) > MAX_SESSIONS:
            raise Limited(
                f"the population has {len(population.members)} sessions, and {MAX_SESSIONS} are signed off at once",
                hint="Review a shorter period, or one target or pipeline.",
            )
        if not population.members:
            raise BadRequest("there is no session in this period to sign off")
        if population.findings:
            raise Conflict(
                "something of this period is missing, and it is not signed off",
                hint="See it: countersign review --population, with the same period.",
                findings=len(population.findings),
            )
        if population.sha256 != wanted.population_sha256:
            raise Conflict(
                "the population is another one than the one that was reviewed",
                hint="Review it again, and sign the digest that is shown.",
            )
        return population

    def _involved(self, bundle: Bundle, population: Population) -> _Involved:
        sessions = [member.session for member in population.members]
        chains = at_once(self._chain, sessions, self._readers)
        actors = {hop.actor.key: hop.actor for chain in chains for hop in chain.hops}
        aliases = frozenset(alias for chain in chains for alias in chain.involved) | actors.keys()
        people = {person.id for person in bundle.people_behind(tuple(aliases))}
        people |= set(self._answerers(sessions, population.period))
        unknown = sum(not bundle.knows_who_is_behind(chain.accountable) for chain in chains)
        return _Involved(people=frozenset(people), aliases=frozenset(aliases), actors=actors, unknown_triggers=unknown)

    def _chain(self, session: Session) -> Chain:
        return self._evidence.chain(Txn(session.txn), session.leaf_hop)

    def _answerers(self, sessions: Sequence[Session], period: Period) -> Iterator[PersonId]:
        """Give everybody who answered for one of the sessions, or for an operation in it."""
        ids = {session.id for session in sessions}
        asked = [session.ask_id for session in sessions if session.ask_id is not None]
        asked += [ask.id for ask in self._stores.asks.since(period.since) if ask.question.session_id in ids]
        for answers in at_once(self._stores.answers.of_ask, list(dict.fromkeys(asked)), self._readers):
            yield from (answer.person for answer in answers)

    def _record(self, name: AuditName, caller: Caller, wanted: SignoffWanted, *, subject: str, code: str) -> None:
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                subject=subject,
                code=code,
                txn=caller.chain.txn,
                actor=caller.actor.key,
                target=wanted.selection.target,
                why=f"population {wanted.population_sha256}",
                acting=Acting.of(caller.chain),
            )
        )


def _reviewer(bundle: Bundle, caller: Caller) -> Person:
    """Return the person who calls. Raises ReviewerNotEligible: a pipeline or an agent, a token without a key, somebody
    of whom nobody could say which runs are theirs."""
    leaf = caller.chain.leaf
    logged_in = any(issuer.url == leaf.actor.issuer and issuer.client_id for issuer in bundle.issuers)
    if not (logged_in and leaf.depth == 0 and leaf.evidence.assurance is Assurance.ATTESTED):
        raise ReviewerNotEligible("a review is signed off by a person, in person", hint="Log in: countersign login.")
    if not caller.key_thumbprint:
        raise ReviewerNotEligible("a review is signed off with a key", hint="Log in: countersign login.")
    people = bundle.people_behind((*caller.chain.involved, leaf.actor.key))
    if len(people) != 1:
        raise ReviewerNotEligible(
            "approvers.yaml does not say who this is, so nobody can say whether they are in what they review",
            hint="Ask the operators to list you, with the names that the issuers know you by.",
        )
    return people[0]


def _require_outside(reviewer: Person, caller: Caller, involved: _Involved) -> None:
    own = {caller.actor.key, *caller.chain.involved, *reviewer.aliases}
    if reviewer.id in involved.people or own & involved.aliases:
        raise ReviewerNotEligible(
            "who acted, is behind a run or answered in these sessions does not sign them off",
            hint="Ask somebody who has no part in them.",
        )


def _check(wanted: SignoffWanted) -> None:
    if set(wanted.keep) & set(wanted.revoke):
        raise BadRequest("an identity is both kept and revoked")
    if len(wanted.note) > MAX_NOTE or (wanted.note and not wanted.note.isprintable()):
        raise BadRequest(f"note is one line of at most {MAX_NOTE} characters")


def _rulings(actors: Mapping[str, Identity], wanted: SignoffWanted) -> tuple[Ruling, ...]:
    """Return a ruling for each identity. Raises BadRequest where one is named that is not there, or none is made."""
    _require_known(actors, (*wanted.keep, *wanted.revoke))
    left = [key for key in actors if key not in {*wanted.keep, *wanted.revoke}]
    if left and not wanted.keep_others:
        raise BadRequest(
            f"nothing is decided of {len(left)} identities, the first is {left[0]}",
            hint="Keep or revoke each, or keep all others.",
        )
    return tuple(
        Ruling(identity=key, name=identity.name, keep=key not in wanted.revoke)
        for key, identity in sorted(actors.items())
    )


def _require_known(actors: Mapping[str, Identity], named: Iterable[str]) -> None:
    for key in named:
        if key not in actors:
            raise BadRequest("an identity is named that acted in none of these sessions")
