"""Opening a connection: the one place where the order that the promise rests on is written down.

The target hop, signed, with our own serial → the connection row → the recording, segment 0 durable → only then ``mint``
→ the caller dials. So whatever holds a credential has a hop, a row and a record. Whatever fails after the row seals it
with the reason. Blocks; only an Admission opens. Does not dial and does not know a protocol.
Source: architecture, "The order of events", opening.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from broker.admission import Admission
from broker.configuration import ActiveConfiguration
from broker.connection.live import Connection, Opened, connection_event
from broker.connection.rows import NumberedRows
from broker.events import EventLog, OperationTeller
from broker.evidence import Evidence
from broker.holds import HoldPoller, HoldStores
from broker.inspection import Inspector, Subject
from broker.liveness import Liveness
from broker.recorder import Recorder, Recording
from broker.recorder.recorder import Closing
from chalicelib.config.bundle import Bundles
from chalicelib.domain.audit import AuditName
from chalicelib.domain.canonical import Json, digest
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import BootEnd, ConnectionRow
from chalicelib.domain.errors import AccessError, Denied, Limited, StoreUnavailable
from chalicelib.domain.identifiers import ConnectionId, new_connection_id, new_hop_id, ulid
from chalicelib.domain.identity import Evidence as HopEvidence
from chalicelib.domain.identity import Identity
from chalicelib.domain.recording import FrameKind, RecordedAs
from chalicelib.domain.secret import Secret
from chalicelib.domain.store import Answers, Asks, Chains, Connections, Functions, Revocations, Sessions, Signer, Uses
from chalicelib.domain.target import CERTIFICATE, Credential
from chalicelib.identity.jws import sign_boot_end, sign_hop

_logger = logging.getLogger(__name__)


class Gateway:
    """Opens connections. Thread-safe."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        chains: Chains,
        connections: Connections,
        revocations: Revocations,
        asks: Asks,
        answers: Answers,
        uses: Uses,
        bundles: Bundles,
        functions: Functions,
        mint_function: str,
        signer: Signer,
        evidence: Evidence,
        inspector: Inspector,
        configuration: ActiveConfiguration,
        liveness: Liveness,
        recorder: Recorder,
        poller: HoldPoller,
        audit: EventLog,
        clock: Clock,
        boot: str,
    ) -> None:
        """``signer`` has the record key; ``boot`` names this process in its rows and is used by no other."""
        self._chains = chains
        self._connections = connections
        self._functions = functions
        self._mint_function = mint_function
        self._signer = signer
        self._inspector = inspector
        self._configuration = configuration
        self._liveness = liveness
        self._recorder = recorder
        self._audit = audit
        self._clock = clock
        self._rows = NumberedRows(connections, boot)
        self._holds = HoldStores(
            sessions=sessions,
            revocations=revocations,
            asks=asks,
            answers=answers,
            uses=uses,
            bundles=bundles,
            evidence=evidence,
            recorder=recorder,
            poller=poller,
            clock=clock,
        )

    def open(self, admission: Admission, *, public_key: str = "") -> Connection:
        """Return the open connection of ``admission``, with the target's credential; a certificate is minted for
        ``public_key`` (``TYPE BASE64``). Blocks for seconds at most.

        Raises AccessError: StoreUnavailable, RecordingUnavailable, Denied (another address), Limited (too many), or
        what ``mint`` refused with. Nothing is left open then: the row is sealed with the reason.
        """
        self._liveness.check(admission.liveness)
        connection_id = new_connection_id(self._clock.now())
        hop = self._put_hop(admission, connection_id)
        # The chain shows this hop to whoever may end it: a revocation of it ends this one connection, and not nothing.
        admission = replace(admission, liveness=admission.liveness | {f"hop:{hop.id}"})
        row = self._rows.put(self._row(admission, connection_id, hop))
        who = _recorded_as(admission, row)
        teller = OperationTeller(who, self._audit)
        recording = self._recorder.start(who, seen=teller, keep_days=admission.target.retention_days)
        teller.found_by(recording.place)
        closing = Closing(
            leaf_hop_sha256=hop.sha256(),
            opened_at=row.opened_at,
            exit="",
            policy_digest=admission.grant.policy_digest,
            configuration_serial=admission.configuration_serial,
            ran=False,
        )
        try:
            self._check_room(admission, row)
            return self._opened(admission, row, recording, closing, public_key)
        except AccessError as error:
            self._ended(admission, row, recording, closing, error)
            raise
        except Exception as error:
            _logger.exception("a connection could not be opened", extra={"connection_id": row.id})
            refusal = StoreUnavailable("the connection could not be opened")
            self._ended(admission, row, recording, closing, refusal)
            raise refusal from error

    def end_boot(self) -> BootEnd:
        """Return how this boot's rows end, signed: nothing opens any more. Raises StoreUnavailable."""
        return sign_boot_end(self._signer, self._rows.close(self._clock.now()))

    def _opened(
        self, admission: Admission, row: ConnectionRow, recording: Recording, closing: Closing, public_key: str
    ) -> Connection:
        recording.accept(FrameKind.OPEN, "ctl", meta=_open_meta(admission, row))
        self._recorder.make_durable(recording)
        self._audit.record(connection_event(AuditName.CONNECTION_OPENED, row.opened_at, admission, row.id))
        credential = self._mint(row, public_key)
        recording.accept(FrameKind.CREDENTIAL, "ctl", meta=(("kind", credential.kind), ("login", credential.login)))
        subject = Subject(
            chain=admission.chain,
            target=admission.target.name,
            principal=admission.principal.name,
            approvals=admission.approvals,
            key_bound=admission.bound,
        )
        return Connection(
            opened=Opened(id=row.id, admission=admission, credential=credential, closing=closing),
            recording=recording,
            inspection=self._inspector.inspect(subject),
            configuration=self._configuration,
            liveness=self._liveness,
            holds=self._holds,
            audit=self._audit,
        )

    def _put_hop(self, admission: Admission, connection_id: ConnectionId) -> Hop:
        now = self._clock.now()
        leaf, target, principal = admission.chain.leaf, admission.target, admission.principal
        claims: Mapping[str, Json] = {
            "connection": connection_id,
            "session": admission.session.id,
            "grant": admission.grant.id,
            "peer": admission.peer,
        }
        unsigned = Hop(
            txn=admission.session.txn,
            id=new_hop_id(now),
            depth=leaf.depth + 1,
            kind=HopKind.TARGET,
            parent=leaf.id,
            parent_sha256=leaf.sha256(),
            originator=admission.chain.originator,
            actor=Identity(
                issuer=f"target:{target.name}", subject=principal.name, name=f"{principal.name}@{target.name}"
            ),
            evidence=HopEvidence(
                kind="connection",
                token_id=connection_id,
                claims_sha256=digest(claims),
                assurance=admission.assurance,
                attributes=(),
            ),
            accountable=(),
            teams=(),
            scope=(),
            key_thumbprint="",
            target=target.name,
            principal=principal.name,
            serial=ulid(now),
            issued_at=now,
            expires_at=min(admission.grant.expires_at, leaf.expires_at),
        )
        hop = sign_hop(self._signer, unsigned)
        self._chains.put(hop)
        return hop

    def _row(self, admission: Admission, connection_id: ConnectionId, hop: Hop) -> ConnectionRow:
        return ConnectionRow(
            id=connection_id,
            session_id=admission.session.id,
            txn=admission.session.txn,
            leaf_hop=admission.chain.leaf.id,
            target_hop=hop.id,
            target=admission.target.name,
            principal=admission.principal.name,
            peer=admission.peer,
            boot="",
            number=0,
            previous_sha256="",
            opened_at=self._clock.now(),
        )

    def _check_room(self, admission: Admission, row: ConnectionRow) -> None:
        """Look again now that our row is there: of two transports that were admitted at once only the earlier may stay,
        and both see the same order."""
        rows = self._connections.of_session(row.session_id)
        earlier = [other for other in rows if (other.opened_at, other.id) < (row.opened_at, row.id)]
        if any(other.peer != row.peer for other in earlier):
            raise Denied("the session is used from another address", reason="source_address")
        if sum(other.sealed_at is None for other in earlier) >= admission.grant.max_connections:
            raise Limited("the session has as many connections open as it may")

    def _mint(self, row: ConnectionRow, public_key: str) -> Credential:
        payload: dict[str, Json] = {"session_id": row.session_id, "connection_id": row.id}
        if public_key:
            payload["public_key"] = public_key
        answer = self._functions.invoke(self._mint_function, payload)
        kind, login = answer.get("kind"), answer.get("login")
        secret, certificate = answer.get("secret", ""), answer.get("certificate", "")
        texts = all(isinstance(text, str) for text in (kind, login, secret, certificate))
        if not (texts and kind and login and (certificate if kind == CERTIFICATE else secret)):
            raise StoreUnavailable("the credential function answered in a way that is not known")
        return Credential(kind=str(kind), login=str(login), secret=Secret(str(secret)), certificate=str(certificate))

    def _ended(
        self,
        admission: Admission,
        row: ConnectionRow,
        recording: Recording,
        closing: Closing,
        error: AccessError,
    ) -> None:
        self._recorder.seal(recording, replace(closing, exit=error.code))
        event = connection_event(AuditName.CONNECTION_REFUSED, self._clock.now(), admission, row.id, code=error.code)
        try:
            self._audit.record(event)
        except Exception:
            _logger.exception("a refused connection could not be audited", extra={"connection_id": row.id})


def _recorded_as(admission: Admission, row: ConnectionRow) -> RecordedAs:
    return RecordedAs(
        session_id=row.session_id,
        connection_id=row.id,
        txn=row.txn,
        protocol=admission.target.protocol.value,
        actor=admission.session.actor.key,
        originator=admission.session.originator.key,
        target=row.target,
        principal=row.principal,
    )


def _open_meta(admission: Admission, row: ConnectionRow) -> tuple[tuple[str, Json], ...]:
    return (
        ("target", row.target),
        ("principal", row.principal),
        ("target_hop", row.target_hop),
        ("peer", row.peer),
        ("grant", admission.grant.id),
        ("rules", list(admission.grant.rules)),
        ("policy_digest", admission.grant.policy_digest),
        ("configuration_serial", admission.configuration_serial),
        ("assurance", admission.assurance.value),
        ("chain", [identity.key for identity in admission.chain.identities]),
        ("record", admission.target.record.value),
    )
