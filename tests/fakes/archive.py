"""A whole chain's evidence in memory stores, as the two planes leave it: the founding story, signed and recorded.

``ci-runner`` (attested) works in ``orders-prod`` with psql, and lets ``deploy-svc`` in (vouched), which lets
``schema-tool`` in (attested by its cluster), which works on ``db-prod`` with ssh. Everything is really signed, with the
keys of ``stores``; nothing of the services that read it is used to make it.

    archive = Archive()
    archive.stores.objects.rows[archive.orders.segments[0]] = b""   # tamper
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from chalicelib.domain.ask import Answer, Ask, Question, Stage, Use, UseKind
from chalicelib.domain.canonical import Json, canonical, digest, sha256_hex
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.identifiers import (
    OperationId,
    PersonId,
    SessionId,
    new_ask_id,
    new_connection_id,
    new_grant_id,
    new_hop_id,
    new_session_id,
    new_txn,
)
from chalicelib.domain.identity import Assurance, Evidence, Identity, Person
from chalicelib.domain.recording import (
    Frame,
    FrameKind,
    Gap,
    Manifest,
    RecordedAs,
    Segment,
    manifest_key,
    segment_header,
    segment_key,
)
from chalicelib.domain.requirement import Approval
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import AccessRequest, ApprovalNeed, Grant, Session, SessionStatus
from chalicelib.domain.store import Stores
from chalicelib.domain.verifier import verifier_of
from chalicelib.identity.jws import sign_answer, sign_hop, sign_manifest
from chalicelib.services.access import request_commitment
from tests.fakes.clock import FakeClock
from tests.fakes.kept import issued_token, keep_token
from tests.fakes.memory import MemoryStores

GITHUB: Final = "https://token.actions.githubusercontent.com"
SERVICE: Final = "https://countersign.example.com"
CLUSTER: Final = "https://oidc.cluster.example.com"
RUNNER: Final = Identity(issuer=GITHUB, subject="9001:700", name="acme/orders deploy")
DEPLOY: Final = Identity(issuer=SERVICE, subject="key:0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", name="deploy-svc")
TOOL: Final = Identity(issuer=CLUSTER, subject="deploy:schema-tool", name="schema-tool")
PEOPLE: Final = (
    Person(id=PersonId("alice"), name="Alice", groups=("dba",), slack_team="T", slack_user="U1", aliases=()),
    Person(id=PersonId("dave"), name="Dave", groups=(), slack_team="T", slack_user="U2", aliases=("gh:actor_id:1001",)),
)
SECRET: Final = "the-sessions-own-secret"
DELETE: Final = "DELETE FROM orders WHERE id = 7"


S = TypeVar("S", bound=Stores)


@dataclass(kw_only=True)
class Connected:
    """One connection of the archive, and where its evidence lies."""

    session_id: SessionId
    row: ConnectionRow
    hop: Hop
    frames: list[Frame]
    who: RecordedAs
    manifest_key: str = ""

    @property
    def segments(self) -> list[str]:
        return [segment_key(self.session_id, self.row.id, number) for number in (0, 1)]


class ArchiveIn(Generic[S]):
    """Everything of one chain, in any stores. ``orders`` and ``db`` are its two connections."""

    def __init__(self, stores: S, clock: FakeClock | None = None) -> None:
        self.stores = stores
        self.clock = clock if clock is not None else FakeClock()
        self.txn = new_txn(self.clock.now())
        self.rows = 0
        self.previous_sha256 = ""
        self.root = self._root()
        self.deploy = self._child(self.root, DEPLOY, ("db-prod", "orders-prod#sql:read"), Assurance.VOUCHED)
        self.tool = self._child(self.deploy, TOOL, ("db-prod/deploy#ssh:exec",), Assurance.ATTESTED)
        self.orders = self._orders()
        self.db = self._db()

    # -- hops ------------------------------------------------------------------------------------------------------

    def sign(self, hop: Hop, key: str = "token") -> Hop:
        """Sign ``hop`` and put it."""
        signed = sign_hop(self.stores.signer(key), hop)
        self.stores.chains.put(signed)
        return signed

    def _root(self) -> Hop:
        now = self.clock.now()
        issued = issued_token(self.clock.now())
        evidence = Evidence(
            kind="oidc:github",
            token_id="jti-1",
            claims_sha256=issued.claims_sha256,
            assurance=Assurance.ATTESTED,
            attributes=(("repository", "acme/orders"), ("ref", "refs/heads/main"), ("run_id", "5001")),
            kept_sha256=keep_token(self.stores, self.txn, GITHUB, issued, self.clock.now()),
        )
        root = Hop(
            txn=self.txn,
            id=new_hop_id(now),
            depth=0,
            kind=HopKind.ORIGIN,
            parent=None,
            parent_sha256="",
            originator=RUNNER,
            actor=RUNNER,
            evidence=evidence,
            accountable=("gh:actor_id:1001",),
            teams=("pipeline",),
            scope=("*",),
            key_thumbprint="NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            target="",
            principal="",
            serial="",
            issued_at=now,
            expires_at=now + timedelta(hours=1),
            max_depth=3,
        )
        return self.sign(root)

    def _child(self, parent: Hop, who: Identity, scope: tuple[str, ...], assurance: Assurance) -> Hop:
        self.clock.advance(20)
        now = self.clock.now()
        kind = "key" if assurance is Assurance.VOUCHED else "oidc:kubernetes"
        evidence = Evidence(kind=kind, token_id="proof", claims_sha256="cd" * 32, assurance=assurance, attributes=())
        child = replace(
            parent,
            id=new_hop_id(now),
            depth=parent.depth + 1,
            kind=HopKind.DELEGATE,
            parent=parent.id,
            parent_sha256=parent.sha256(),
            actor=who,
            evidence=evidence,
            accountable=(),
            teams=("schema-tools",) if who is TOOL else parent.teams,
            scope=scope,
            key_thumbprint=who.subject.removeprefix("key:"),
            issued_at=now,
            expires_at=parent.expires_at - timedelta(minutes=10),
            ticket=f"tkt_{self.txn}",
            rules=("agents-delegate",),
            signature="",
        )
        return self.sign(child)

    # -- sessions and connections ----------------------------------------------------------------------------------

    def grant(
        self, leaf: Hop, target: str, principal: str, reason: str, *, rules: tuple[str, ...], approved_by: str = ""
    ) -> Session:
        """Put a granted session; with ``approved_by``, on that person's approval under the rule ``prod-open``."""
        self.clock.advance(5)
        now = self.clock.now()
        request = AccessRequest(target=target, principal=principal, reason=reason, duration_s=900)
        session = Session(
            id=new_session_id(now),
            txn=self.txn,
            status=SessionStatus.GRANTED,
            request=request,
            actor=leaf.actor,
            originator=leaf.originator,
            leaf_hop=leaf.id,
            token_id="tok-1",
            created_at=now,
            ask_id=None,
            grant=None,
            verifier=verifier_of(Secret(SECRET)),
            closed_at=None,
            close_reason="",
        )
        if approved_by:
            need = ApprovalNeed(rule="prod-open", approval=Approval(group="dba", count=1), hint="")
            ask = self.ask(session, leaf, need, text="", commitment=request_commitment(request), by=approved_by)
            session = replace(session, ask_id=ask.id)
            self.use(ask, f"session:{session.id}")
        now = self.clock.now()
        grant = Grant(
            id=new_grant_id(now),
            session_id=session.id,
            target=target,
            principal=principal,
            not_before=now,
            expires_at=now + timedelta(minutes=15),
            rules=rules,
            met=("prod-open",) if approved_by else (),
            policy_digest="cd" * 32,
            configuration_serial=1,
            max_connections=4,
        )
        session = replace(session, grant=grant)
        self.stores.sessions.create(session)
        return session

    def ask(
        self,
        session: Session,
        leaf: Hop,
        need: ApprovalNeed,
        *,
        text: str,
        by: str,
        commitment: str = "00" * 32,
        connection: str = "",
        operation: str = "",
    ) -> Ask:
        """Put an ask and the signed yes of ``by``."""
        question = Question(
            stage=Stage.OPERATION if operation else Stage.REQUEST,
            session_id=session.id,
            connection_id=connection,
            operation_id=operation,
            txn=self.txn,
            chain=(RUNNER.key,),
            leaf_hop_sha256=leaf.sha256(),
            target=session.request.target,
            principal=session.request.principal,
            action="sql:write" if operation else "session:open",
            text=text,
            binds=(),
            literals=(),
            state=(),
            commitment=commitment,
            reason=session.request.reason,
            duration_s=900,
            rules=(need.rule,),
            needs=(need,),
            trigger_known=True,
            configuration_serial=1,
            policy_digest="cd" * 32,
        )
        now = self.clock.now()
        ask = Ask(
            id=new_ask_id(now),
            question=question,
            digest=question.digest(),
            excluded=(PersonId("dave"),),
            created_at=now,
            expires_at=now + timedelta(minutes=5),
        )
        self.stores.asks.put(ask)
        self.clock.advance(30)
        card = canonical([{"type": "section", "text": text}]).decode()
        answer = Answer(
            ask_id=ask.id,
            person=PersonId(by),
            approved=True,
            digest=ask.digest,
            groups=("dba",),
            card_sha256=sha256_hex(card.encode()),
            card=card,
            via="slack:T/U1/C1/1.0",
            answered_at=self.clock.now(),
        )
        self.stores.answers.put(sign_answer(self.stores.signer("answer"), answer))
        return ask

    def use(self, ask: Ask, by: str) -> None:
        self.stores.uses.put(Use(ask_id=ask.id, n=1, kind=UseKind.RAN, by=by, why="", at=self.clock.now()))

    def connect(self, session: Session, leaf: Hop, protocol: str, *, bound: bool = False) -> Connected:
        """Put a target hop and a connection row, and open a recording."""
        self.clock.advance(2)
        grant = session.grant
        assert grant is not None
        now = self.clock.now()
        connection_id = new_connection_id(now)
        claims: Mapping[str, Json] = {
            "connection": connection_id,
            "session": session.id,
            "grant": grant.id,
            "peer": "10.0.3.17",
        }
        evidence = Evidence(
            kind="connection",
            token_id=connection_id,
            claims_sha256=digest(claims),
            assurance=leaf.evidence.assurance if bound else Assurance.BEARER,
            attributes=(),
        )
        hop = self.sign(
            replace(
                leaf,
                id=new_hop_id(now),
                depth=leaf.depth + 1,
                kind=HopKind.TARGET,
                parent=leaf.id,
                parent_sha256=leaf.sha256(),
                actor=Identity(
                    issuer=f"target:{grant.target}", subject=grant.principal, name=f"{grant.principal}@{grant.target}"
                ),
                evidence=evidence,
                accountable=(),
                teams=(),
                scope=(),
                key_thumbprint="",
                target=grant.target,
                principal=grant.principal,
                serial=f"serial-{self.rows}",
                issued_at=now,
                expires_at=grant.expires_at,
                ticket="",
                rules=(),
                signature="",
            ),
            key="record",
        )
        self.rows += 1
        row = ConnectionRow(
            id=connection_id,
            session_id=session.id,
            txn=self.txn,
            leaf_hop=leaf.id,
            target_hop=hop.id,
            target=grant.target,
            principal=grant.principal,
            peer="10.0.3.17",
            boot="boot-1",
            number=self.rows,
            previous_sha256=self.previous_sha256,
            opened_at=now,
        )
        self.previous_sha256 = row.sha256()
        self.stores.connections.put(row)
        who = RecordedAs(
            session_id=session.id,
            connection_id=connection_id,
            txn=self.txn,
            protocol=protocol,
            actor=leaf.actor.key,
            originator=leaf.originator.key,
            target=grant.target,
            principal=grant.principal,
        )
        connected = Connected(session_id=session.id, row=row, hop=hop, frames=[], who=who)
        self.frame(
            connected,
            FrameKind.OPEN,
            target=grant.target,
            principal=grant.principal,
            grant=grant.id,
            rules=list(grant.rules),
            policy_digest=grant.policy_digest,
        )
        return connected

    # -- what was done ---------------------------------------------------------------------------------------------

    def frame(
        self,
        on: Connected,
        kind: FrameKind,
        *,
        text: str = "",
        way: str = "ctl",
        meta: Mapping[str, Json] | None = None,
        **more: Json,
    ) -> None:
        said = tuple({**(meta or {}), **more}.items())
        frame = Frame(seq=len(on.frames) + 1, at=self.clock.now(), dir=way, kind=kind, text=text, meta=said)
        on.frames.append(frame)
        self.clock.advance(0.25)

    def operation(self, on: Connected, op: str, text: str, verdict: str, **meta: Json) -> None:
        known: dict[str, Json] = {"op": op, "verdict": verdict, "rules": ["works"], "binds": [], **meta}
        known.setdefault("actions", ["sql:read"])
        self.frame(on, FrameKind.OPERATION, text=text, way="c2s", meta=known)

    def outcome(self, on: Connected, op: str, status: str, tag: str, rows: int = 0) -> None:
        self.frame(on, FrameKind.OUTCOME, op=op, status=status, tag=tag, rows=rows, sqlstate="", duration_ms=2)

    def store(self, on: Connected, *, frames: Sequence[Frame] | None = None, gaps: tuple[Gap, ...] = ()) -> None:
        """Put two segments and the manifest, and seal the row, as the broker does."""
        kept = list(on.frames if frames is None else frames)
        half = len(kept) // 2
        segments: list[Segment] = []
        previous = ""
        for number, part in enumerate((kept[:half], kept[half:])):
            raw = segment_header(on.who, number, previous) + b"".join(frame.line(on.who) for frame in part)
            previous = sha256_hex(raw)
            body = gzip.compress(raw, mtime=0)
            put = self.stores.objects.put_new(on.segments[number], body, content_type="application/gzip")
            segments.append(
                Segment(
                    number=number,
                    key=put.key,
                    version_id=put.version_id if number else "",
                    raw_bytes=len(raw),
                    sha256_raw=previous,
                    sha256_stored=sha256_hex(body),
                    first=part[0].seq,
                    last=part[-1].seq,
                )
            )
        self.seal(on, tuple(segments), gaps)

    def seal(
        self, on: Connected, segments: tuple[Segment, ...], gaps: tuple[Gap, ...] = (), key: str = "record"
    ) -> None:
        now = self.clock.now()
        manifest = Manifest(
            session_id=on.session_id,
            connection_id=on.row.id,
            txn=self.txn,
            leaf_hop_sha256=on.hop.sha256(),
            opened_at=on.row.opened_at,
            closed_at=now,
            exit="client",
            segments=segments,
            gaps=gaps,
            policy_digest="cd" * 32,
            configuration_serial=1,
            broker_build="test",
            sealed_by="boot-1",
        )
        signed = sign_manifest(self.stores.signer(key), manifest)
        on.manifest_key = manifest_key(on.session_id, on.row.id, on.row.opened_at)
        body = canonical({**signed.signed(), "signature": signed.signature})
        self.stores.objects.put_new(on.manifest_key, body, content_type="application/json")
        self.stores.connections.seal(
            on.session_id, on.row.id, at=now, exit="client", key=on.manifest_key, sha256=manifest.sha256()
        )

    def _orders(self) -> Connected:
        """A masked read, a blocked statement, and one that was held and ran."""
        rules = ("pipeline-opens",)
        session = self.grant(self.root, "orders-prod", "app", "deploy 7", rules=rules, approved_by="alice")
        on = self.connect(session, self.root, "postgres")
        self.operation(on, "op_1", "SELECT email FROM customers", "mask", rules=["works", "pii"])
        self.frame(
            on, FrameKind.ROWS, text='["1","#MASKED:email#"]\n["2",null]', way="s2c", op="op_1", columns=["id", "email"]
        )
        self.outcome(on, "op_1", "ok", "SELECT 2", 2)
        self.operation(on, "op_2", "DROP TABLE orders", "block", code="policy_denied", rules=["no-ddl"])
        self.operation(on, "op_3", DELETE, "hold", rules=["prod-write"], actions=["sql:write"])
        need = ApprovalNeed(rule="prod-write", approval=Approval(group="dba", count=1), hint="")
        ask = self.ask(
            session, on.hop, need, text=DELETE, by="alice", connection=on.row.id, operation=OperationId("op_3")
        )
        self.frame(on, FrameKind.HELD, op="op_3", ask=ask.id, digest=ask.digest, needs=[])
        self.frame(on, FrameKind.ANSWERED, op="op_3", ask=ask.id, state="approved", people=["alice"])
        self.use(ask, "broker:boot-1")
        self.frame(on, FrameKind.VERDICT, op="op_3", ask=ask.id, verdict="forward", rules=["prod-write", "works"])
        self.outcome(on, "op_3", "ok", "DELETE 1", 1)
        self.frame(on, FrameKind.CLOSE, exit="client")
        self.store(on)
        return on

    def _db(self) -> Connected:
        """An exec whose output held a secret, one that failed, and one that was refused."""
        session = self.grant(self.tool, "db-prod", "deploy", "schema drift check", rules=("schema-tools-open",))
        on = self.connect(session, self.tool, "ssh", bound=True)
        rules: Json = ["schema-tools-run"]
        self.operation(on, "op_4", "uptime", "mask", rules=rules, actions=["ssh:exec"])
        self.frame(
            on,
            FrameKind.DATA,
            text=" 09:32 up 3 days\nkey #MASKED:aws_access_key#\n",
            way="s2c",
            op="op_4",
            encoding="utf-8",
            stream="stdout",
        )
        self.outcome(on, "op_4", "ok", "exit 0")
        self.operation(on, "op_5", "cat /nowhere", "forward", rules=rules, actions=["ssh:exec"])
        self.frame(on, FrameKind.DATA, text="cat: no\n", way="s2c", op="op_5", encoding="utf-8", stream="stderr")
        self.outcome(on, "op_5", "error", "exit 1")
        self.operation(
            on, "op_6", "systemctl stop postgresql", "block", rules=["no-service-control"], actions=["ssh:exec"]
        )
        self.frame(on, FrameKind.CLOSE, exit="client")
        self.store(on)
        return on


class Archive(ArchiveIn[MemoryStores]):
    """The same in memory stores, whose rows a test may tamper with."""

    def __init__(self) -> None:
        super().__init__(MemoryStores())

    def change_row(self, on: Connected, **changed: Any) -> None:
        """Change a connection's row, as whoever can write the table could."""
        row = self.stores.connections.rows[on.session_id, on.row.id]
        self.stores.connections.rows[on.session_id, on.row.id] = replace(row, **changed)

    def change_session(self, on: Connected, **changed: Any) -> None:
        session = self.stores.sessions.rows[on.session_id]
        self.stores.sessions.rows[on.session_id] = replace(session, **changed)

    def change_hop(self, hop: Hop, **changed: Any) -> None:
        self.stores.chains.rows[hop.txn, hop.depth, hop.id] = replace(hop, **changed)

    def change_answers(self, **changed: Any) -> None:
        for key, answer in self.stores.answers.rows.items():
            self.stores.answers.rows[key] = replace(answer, **changed)

    def change_manifest(self, on: Connected, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a stored manifest, as whoever could replace the object would."""
        document = json.loads(self.stores.objects.rows[on.manifest_key])
        change(document)
        self.stores.objects.rows[on.manifest_key] = canonical(document)

    def store_again(self, on: Connected, frames: Sequence[Frame], gaps: tuple[Gap, ...] = ()) -> None:
        """Replace a recording by one of ``frames``, sealed by the broker's own key."""
        for key in (*on.segments, on.manifest_key):
            self.stores.objects.rows.pop(key)
        self.change_row(on, sealed_at=None)
        self.store(on, frames=frames, gaps=gaps)
