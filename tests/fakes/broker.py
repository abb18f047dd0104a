"""A whole broker flow in memory: stores, a session with a signed chain, a policy that a test writes in one line.

Everything real of ``broker`` runs; what is faked keeps its protocol's contract. Threads are never started: a test calls
the step functions, moves the clock, and decides when the pool runs what was submitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, ParamSpec, TypeVar, cast

from broker.admission import Admission, Admissions
from broker.configuration import ActiveConfiguration
from broker.connection import Connection, Gateway
from broker.evidence import Evidence
from broker.holds import HoldPoller
from broker.inspection import Inspector
from broker.liveness import Liveness
from broker.recorder import Recorder
from broker.recorder.spool import Spool
from chalicelib.config.bundle import Bundle
from chalicelib.domain.ask import Answer, Ask, Question, Stage
from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Chain, Hop, HopKind
from chalicelib.domain.errors import AccessError
from chalicelib.domain.identifiers import PersonId, SessionId, new_ask_id, new_hop_id, new_operation_id, new_txn, ulid
from chalicelib.domain.identity import Assurance, Identity, Person
from chalicelib.domain.identity import Evidence as HopEvidence
from chalicelib.domain.operation import Act, Operation
from chalicelib.domain.operation_events import ToldOperation
from chalicelib.domain.policy import Allow, Decision, Deny, NeedsApproval, PolicyQuestion
from chalicelib.domain.requirement import Approval
from chalicelib.domain.scope import DEFAULT_DEPTH
from chalicelib.domain.session import AccessRequest, ApprovalNeed, Grant, Session, SessionStatus
from chalicelib.domain.target import Principal, Protocol, Target
from chalicelib.domain.verifier import new_session_secret, verifier_of
from chalicelib.identity.jws import sign_answer, sign_hop, verify_answer, verify_hop
from chalicelib.services.access import request_commitment
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemoryStores

P = ParamSpec("P")
T = TypeVar("T")

PEER: Final = "192.0.2.7"
MINT: Final = "test-mint"
PERMITTED: Final = Allow(rules=("read",), masks=(), durable=False, record_full=False, bound=False)
REFUSED: Final = Deny(rules=("no-drop",), public="this is not allowed", hint="Ask the owners.")
DBA: Final = ApprovalNeed(rule="prod-delete", approval=Approval(group="dba", count=1), hint="ask the dba on call")


class InlinePool:
    """Runs at once, in the caller's thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 a pool keeps what a call raised for who asks
            future.set_exception(error)
        return future


class WaitingPool:
    """Runs what was submitted when the test says so, in the order that it says: a store that is slow."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            future.set_result(fn(*args, **kwargs))

        self.waiting.append(run)
        return future

    def run(self, index: int = 0) -> None:
        self.waiting.pop(index)()

    def run_all(self) -> None:
        while self.waiting:
            self.run()


class ScriptedPolicy:
    """An outcome for each action; one that needs approvals becomes ``then`` once every rule it names is met."""

    def __init__(self, outcomes: Mapping[str, Decision], *, version: str = "1", covers: frozenset[str] = frozenset()):
        self.outcomes = dict(outcomes)
        self.then: Allow = replace(PERMITTED, rules=("prod-delete",))
        self.covers = covers
        self.asked: list[PolicyQuestion] = []
        self.raises: Exception | None = None
        self._digest = hashlib.sha256(version.encode()).hexdigest()

    @property
    def digest(self) -> str:
        return self._digest

    def decide(self, question: PolicyQuestion) -> Decision:
        self.asked.append(question)
        if self.raises is not None:
            raise self.raises
        outcome = self.outcomes.get(question.action, REFUSED)
        if isinstance(outcome, NeedsApproval) and {need.rule for need in outcome.needs} <= question.met:
            return self.then
        return outcome

    def covers_session(self, rule: str) -> bool:
        return rule in self.covers


class SettableBundles:
    """The active bundle is what a test says it is."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.error: AccessError | None = None

    def current(self) -> Bundle:
        if self.error is not None:
            raise self.error
        return self.bundle

    def for_new_sessions(self) -> Bundle:
        return self.current()


class MemoryAudit:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.operations: list[AuditEvent] = []
        self.error: Exception | None = None
        self.full: AccessError | None = None

    def record(self, event: AuditEvent) -> None:
        if self.error is not None:
            raise self.error
        self.events.append(event)

    def operated(self, told: ToldOperation, place: Callable[[int], str]) -> None:
        self.operations.append(told.event())

    def require_room(self) -> None:
        if self.full is not None:
            raise self.full

    def names(self) -> list[str]:
        return [event.name.value for event in self.events]


class _Noted:
    """A store that writes down each call of the named methods, before and only if it succeeds after."""

    def __init__(self, store: object, name: str, journal: list[str]) -> None:
        self._store = store
        self._name = name
        self._journal = journal

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._store, method)
        if method not in {"put", "put_new", "seal", "invoke"}:
            return found

        def noted(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            what = args[0] if isinstance(args[0], str) else type(args[0]).__name__
            self._journal.append(f"{self._name}.{method} {what}")
            return result

        return noted


def demo_target() -> Target:
    return Target(
        name="orders-prod",
        protocol=Protocol.POSTGRES,
        environment="prod",
        description="orders",
        host="db.internal",
        port=5432,
        database="orders",
        principals=(Principal(name="app_rw", credential="secret/orders"),),
        default_principal="app_rw",
        ca_pem="",
        plaintext=False,
        search_path=("public", "pg_temp"),
        tags=(),
        max_session_s=3600,
        max_connections=4,
        hold_budget_s=300,
        durable=False,
    )


def person(name: str, *groups: str, aliases: tuple[str, ...] = ()) -> Person:
    return Person(id=PersonId(name), name=name, groups=groups, slack_team="T1", slack_user=f"U-{name}", aliases=aliases)


def operation(action: str = "sql:read", text: str = "SELECT 1", *, binds: tuple[bytes | None, ...] = ()) -> Operation:
    return Operation(
        id=new_operation_id(FakeClock().now()),
        protocol="postgres",
        acts=(Act(action=action, context=(("tables", ("public.orders",)),)),),
        text=text,
        shown_binds=tuple("null" if bind is None else bind.decode("utf-8", "replace") for bind in binds),
        literals=(),
        exact=text.encode(),
        binds=binds,
    )


@dataclass
class World:
    """One broker with one granted session: change ``policy``, ``bundles``, ``stores``, ``clock``, and look."""

    clock: FakeClock = field(default_factory=FakeClock)
    stores: MemoryStores = field(default_factory=MemoryStores)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    journal: list[str] = field(default_factory=list)
    pool: InlinePool | WaitingPool = field(default_factory=InlinePool)
    accountable: tuple[str, ...] = ("gh:actor_id:1",)
    spool: Spool | None = None
    objects: Any = None  # what the recorder takes for the bucket, where it is not the stores' own

    def __post_init__(self) -> None:
        self.policy = ScriptedPolicy(
            {
                "session:open": PERMITTED,
                "sql:read": PERMITTED,
                "sql:define": PERMITTED,
                "sql:opaque": PERMITTED,
                "sql:write": NeedsApproval(rules=("prod-delete",), needs=(DBA,)),
            }
        )
        self.people = (person("dora", "dba"), person("eve", "dba"), person("dev", "dba", aliases=("gh:actor_id:1",)))
        self.bundle = Bundle(
            digest="b1",
            serial=3,
            targets={"orders-prod": demo_target()},
            issuers=(),
            people=self.people,
            masks={},
            policy=self.policy,
        )
        self.bundles = SettableBundles(self.bundle)
        self.configuration = ActiveConfiguration(bundles=self.bundles, clock=self.clock)
        self.liveness = Liveness(
            revocations=self.stores.revocations,
            clock=self.clock,
        )
        keys = self.stores.keys
        self.evidence = Evidence(
            verify_hop=lambda hop: verify_hop(hop, keys), verify_answer=lambda answer: verify_answer(answer, keys)
        )
        self.recorder = Recorder(
            objects=self.objects or self.noted("objects"),
            connections=self.noted("connections"),
            signer=self.stores.signer("record"),
            pool=self.pool,
            clock=self.clock,
            build="test",
            sealed_by="broker:boot1",
            spool=self.spool,
            open_within_s=0.0,  # nothing here becomes durable by waiting: the pool runs at once, or not at all
            close_within_s=0.0,
        )
        self.poller = HoldPoller(
            answers=self.stores.answers, uses=self.stores.uses, evidence=self.evidence, clock=self.clock
        )
        self.secret = new_session_secret()
        self.stores.functions.register(MINT, self._mint)
        self.admissions = self._admissions()
        self.gateway = self.new_gateway("boot1")
        self.chain = self._chain()
        self.session = self._session()
        self.configuration.step()
        self.liveness.step()

    def noted(self, name: str) -> Any:
        return cast(Any, _Noted(getattr(self.stores, name), name, self.journal))

    def new_gateway(self, boot: str) -> Gateway:
        return Gateway(
            sessions=self.stores.sessions,
            chains=self.noted("chains"),
            connections=self.noted("connections"),
            revocations=self.stores.revocations,
            asks=self.noted("asks"),
            answers=self.stores.answers,
            uses=self.noted("uses"),
            bundles=self.bundles,
            functions=self.noted("functions"),
            mint_function=MINT,
            signer=self.stores.signer("record"),
            evidence=self.evidence,
            inspector=Inspector(self.configuration),
            configuration=self.configuration,
            liveness=self.liveness,
            recorder=self.recorder,
            poller=self.poller,
            audit=self.audit,
            clock=self.clock,
            boot=boot,
        )

    def _admissions(self) -> Admissions:
        return Admissions(
            sessions=self.stores.sessions,
            chains=self.stores.chains,
            connections=self.stores.connections,
            revocations=self.stores.revocations,
            asks=self.stores.asks,
            answers=self.stores.answers,
            uses=self.stores.uses,
            bundles=self.bundles,
            evidence=self.evidence,
            liveness=self.liveness,
            audit=self.audit,
            clock=self.clock,
            pepper=b"p" * 32,
        )

    def _mint(self, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        return {"kind": "password", "login": "app_rw", "secret": "minted-secret"}

    def _chain(self) -> Chain:
        now = self.clock.now()
        actor = Identity(issuer="https://ci.example", subject="repo:acme/shop", name="ci-runner")
        hop = Hop(
            txn=new_txn(now),
            id=new_hop_id(now),
            depth=0,
            kind=HopKind.ORIGIN,
            parent=None,
            parent_sha256="",
            originator=actor,
            actor=actor,
            evidence=HopEvidence(
                kind="oidc", token_id="jti-1", claims_sha256="0" * 64, assurance=Assurance.ATTESTED, attributes=()
            ),
            accountable=self.accountable,
            teams=(),
            scope=("*",),
            key_thumbprint="",
            target="",
            principal="",
            serial="",
            issued_at=now,
            expires_at=now + timedelta(hours=2),
            max_depth=DEFAULT_DEPTH,
        )
        return Chain(hops=(self.put_hop(hop),))

    def delegate(self, *scope: str, **fields: Any) -> Hop:
        """Let a child of the leaf in, with ``scope``, and make the session the child's."""
        parent = self.chain.leaf
        plain = replace(
            parent,
            id=new_hop_id(self.clock.now()),
            depth=parent.depth + 1,
            kind=HopKind.DELEGATE,
            parent=parent.id,
            parent_sha256=parent.sha256(),
            actor=Identity(issuer="https://countersign.example", subject="key:child", name="deploy-svc"),
            scope=scope,
        )
        child = self.put_hop(replace(plain, **fields))
        self.chain = Chain(hops=(*self.chain.hops, child))
        self.change_session(leaf_hop=child.id, actor=child.actor)
        return child

    def put_hop(self, hop: Hop) -> Hop:
        signed = sign_hop(self.stores.signer("token"), hop)
        self.stores.chains.put(signed)
        return signed

    def _session(self) -> Session:
        now = self.clock.now()
        session_id = SessionId(f"ses_{ulid(now)}")
        grant = Grant(
            id=cast(Any, f"grt_{ulid(now)}"),
            session_id=session_id,
            target="orders-prod",
            principal="app_rw",
            not_before=now,
            expires_at=now + timedelta(hours=1),
            rules=("open",),
            met=(),
            policy_digest=self.policy.digest,
            configuration_serial=self.bundle.serial,
            max_connections=4,
        )
        session = Session(
            id=session_id,
            txn=self.chain.txn,
            status=SessionStatus.GRANTED,
            request=AccessRequest(target="orders-prod", principal="app_rw", reason="ticket 7", duration_s=3600),
            actor=self.chain.leaf.actor,
            originator=self.chain.originator,
            leaf_hop=self.chain.leaf.id,
            token_id="tok-1",
            created_at=now,
            ask_id=None,
            grant=grant,
            verifier=verifier_of(self.secret),
            closed_at=None,
            close_reason="",
        )
        self.stores.sessions.create(session)
        return session

    def change_session(self, **fields: Any) -> None:
        """Rewrite the session's row: what an earlier step, or somebody with the table's rights, left there."""
        self.session = replace(self.session, **fields)
        self.stores.sessions.rows[self.session.id] = self.session

    def ask_for_session(self, needs: tuple[ApprovalNeed, ...], **fields: Any) -> Ask:
        """Put a request-stage Ask, and make the session the one that it granted."""
        now = self.clock.now()
        question = Question(
            stage=Stage.REQUEST,
            session_id=self.session.id,
            connection_id="",
            operation_id="",
            txn=self.session.txn,
            chain=(),
            leaf_hop_sha256=self.chain.leaf.sha256(),
            target="orders-prod",
            principal="app_rw",
            action="session:open",
            text="",
            binds=(),
            literals=(),
            state=(),
            commitment=request_commitment(self.session.request),
            reason="ticket 7",
            duration_s=3600,
            rules=tuple(need.rule for need in needs),
            needs=needs,
            trigger_known=bool(self.accountable),
            configuration_serial=self.bundle.serial,
            policy_digest=self.policy.digest,
        )
        question = replace(question, **fields)
        ask = Ask(
            id=new_ask_id(now),
            question=question,
            digest=question.digest(),
            excluded=(PersonId("dev"),),
            created_at=now,
            expires_at=now + timedelta(minutes=10),
        )
        self.stores.asks.put(ask)
        grant = self.session.grant
        assert grant is not None
        self.change_session(ask_id=ask.id, grant=replace(grant, met=tuple(need.rule for need in needs)))
        return ask

    def answer(self, ask: Ask, who: str, *, approved: bool = True, key: str = "answer", **fields: Any) -> Answer:
        """Put a signed answer, as ``decide`` does."""
        answer = Answer(
            ask_id=ask.id,
            person=PersonId(who),
            approved=approved,
            digest=ask.digest,
            groups=("dba",),
            card_sha256=hashlib.sha256(b"[]").hexdigest(),
            card="[]",
            via="slack:T1/U1/C1/1",
            answered_at=self.clock.now(),
        )
        signed = sign_answer(self.stores.signer(key), replace(answer, **fields))
        self.stores.answers.put(signed)
        return signed

    def admit(self, peer: str = PEER, *, bound: bool = False) -> Admission:
        return self.admissions.admit(self.session.id, peer, bound=bound)

    def connect(self, *, bound: bool = False, public_key: str = "") -> Connection:
        return self.gateway.open(self.admit(bound=bound), public_key=public_key)

    def activate(self, policy: ScriptedPolicy | None = None, *, read: bool = True, **fields: Any) -> None:
        """Make a newer bundle active; ``read``: the broker's thread has read it."""
        current = self.bundles.bundle
        self.bundles.bundle = replace(current, serial=current.serial + 1, policy=policy or current.policy, **fields)
        if read:
            self.configuration.step()

    def revoke(self, key: str) -> None:
        self.stores.revocations.revoke(key, by="sec", why="test", at=self.clock.now())
