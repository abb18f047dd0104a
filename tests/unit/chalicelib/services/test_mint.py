"""``mint``: a credential for a connection whose whole evidence holds, and for no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.domain.ask import UseKind
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import (
    AccessError,
    BadRequest,
    GrantExpired,
    GrantRevoked,
    NotFound,
    PolicyDenied,
    ProofInvalid,
    StoreUnavailable,
)
from chalicelib.domain.identifiers import ConnectionId, SessionId, new_connection_id, new_hop_id
from chalicelib.domain.identity import Assurance, Evidence, Identity
from chalicelib.domain.session import Session
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.target import Credential
from chalicelib.identity.jws import sign_hop
from chalicelib.identity.ssh_certificates import UserCertificate, certificate_serial, verify_certificate
from tests.fakes.control_plane import FILES, ControlPlane
from tests.fakes.keys import Key
from tests.fakes.passkey import SoftPasskey
from tests.unit.chalicelib.services.ssh_targets import SSH_FILES, new_public_key

PASSWORD = "the-targets-own-password"
SERIAL = "01k9vq3v5000000000000000aa"


class Opened:
    """A session granted on an approval, and a connection that the broker is just opening in it."""

    def __init__(self, target: str = "orders-prod", principal: str = "app") -> None:
        self.plane = ControlPlane(files=SSH_FILES)
        self.stores = self.plane.stores
        self.principal = principal
        self.public_key = ""
        self.stores.secrets.rows[f"countersign/targets/{target}/{principal}"] = PASSWORD
        token = self.plane.token()
        body = self.plane.ask(token, target, principal=principal).json_body
        if target == "orders-prod":
            self.plane.click(self.plane.card(), "UALICE")
            self.plane.poll(token, body["session_id"])
        self.session_id = SessionId(body["session_id"])
        self.hop = self.put_hop()
        self.row = self.put_row()

    @property
    def session(self) -> Session:
        return self.stores.sessions.rows[self.session_id]

    def put_hop(self, *, key: str = "record", **changed: Any) -> Hop:
        """Put the target hop as the broker does, changed, signed by ``key``."""
        parent = next(hop for hop in self.stores.chains.rows.values() if hop.kind is HopKind.ORIGIN)
        now = self.plane.clock.now()
        hop = Hop(
            txn=parent.txn,
            id=new_hop_id(now),
            depth=1,
            kind=HopKind.TARGET,
            parent=parent.id,
            parent_sha256=parent.sha256(),
            originator=parent.originator,
            actor=Identity(issuer="target:x", subject=self.principal, name=f"{self.principal}@x"),
            evidence=Evidence(
                kind="connection", token_id="con", claims_sha256="", assurance=Assurance.BEARER, attributes=()
            ),
            accountable=(),
            teams=(),
            scope=(),
            key_thumbprint="",
            target=self.session.request.target,
            principal=self.principal,
            serial=SERIAL,
            issued_at=now,
            expires_at=now + timedelta(minutes=5),
        )
        signed = sign_hop(self.stores.signer(key), replace(hop, **changed))
        self.stores.chains.put(signed)
        return signed

    def put_row(self, **changed: Any) -> ConnectionRow:
        now = self.plane.clock.now()
        row = ConnectionRow(
            id=new_connection_id(now),
            session_id=self.session_id,
            txn=self.session.txn,
            leaf_hop=self.session.leaf_hop,
            target_hop=self.hop.id,
            target=self.session.request.target,
            principal=self.principal,
            peer="127.0.0.1",
            boot="boot-1",
            number=1,
            previous_sha256="",
            opened_at=now,
        )
        self.row = replace(row, **changed)
        self.stores.connections.put(self.row)
        return self.row

    def change_session(self, **changed: Any) -> None:
        self.stores.sessions.rows[self.session_id] = replace(self.session, **changed)

    def change_grant(self, **changed: Any) -> None:
        assert self.session.grant is not None
        self.change_session(grant=replace(self.session.grant, **changed))

    def mint(self) -> tuple[str, str]:
        minted = self.credential()
        return minted.login, minted.secret.expose()

    def credential(self) -> Credential:
        return self.plane.mint(self.session_id, self.row.id, self.public_key)


class OpenedSsh(Opened):
    """The same on an ssh target, with the key that the broker made for this connection."""

    def __init__(self, principal: str = "deploy") -> None:
        super().__init__("db-host", principal)
        self.public_key = new_public_key()

    def read(self, credential: Credential, *, after: timedelta = timedelta()) -> UserCertificate:
        """Return what the target's sshd finds in it."""
        keys = self.stores.keys.public_keys(KeyPurpose.SSH_TARGET.value)
        now = self.plane.clock.now() + after
        return verify_certificate(credential.certificate, keys, now=now, login=credential.login)


@pytest.mark.parametrize("target", ["orders-prod", "orders-dev"])
def test_a_connection_that_can_be_shown_gets_its_credential(target: str) -> None:
    """The one way to a target's secret, whether people approved the session or policy alone did."""
    opened = Opened(target)
    assert opened.mint() == ("app", PASSWORD)
    assert "credential.minted" in opened.plane.events.names()


@pytest.mark.parametrize("wants", ["approval:dba:2", "approval:dba:1:webauthn"])
def test_approvals_that_met_less_than_the_rule_wants_mint_nothing(wants: str) -> None:
    """Attack: a stolen API role put an Ask for one person's click where the rule wants more, and a grant that rests on
    it. The grant names the rule as met; ``mint`` looks at what the rule wants."""
    opened = Opened()
    bundles, key = opened.plane.bundles, SoftPasskey()
    alice = bundles.files["approvers.yaml"].replace("alice: {", f"alice: {{passkeys: [{key.entry()}], ")
    bundles.activate(approvers=alice, policy=bundles.files["policies/main.cedar"].replace("approval:dba:1", wants))
    with pytest.raises(PolicyDenied):
        opened.mint()


def test_over_the_function_it_is_four_fields() -> None:
    """What the broker reads; anything more would be a secret's neighbour in a log."""
    opened = Opened()
    answer = opened.stores.functions.invoke("mint", {"session_id": opened.session_id, "connection_id": opened.row.id})
    assert answer == {"kind": "password", "login": "app", "secret": PASSWORD, "certificate": ""}


def test_a_certificate_is_for_this_connection_alone() -> None:
    """Over the broker's own key, for the one account, for minutes, with the ids that sshd's log then has."""
    opened = OpenedSsh()
    credential = opened.credential()
    assert (credential.kind, credential.login, credential.secret.expose()) == ("certificate", "deploy-svc", "")
    said = opened.read(credential)
    session, now = opened.session, opened.plane.clock.now()
    assert said.public_key == opened.public_key
    assert said.principals == ("deploy-svc",)
    assert said.key_id == f"txn:{session.txn} ses:{session.id} con:{opened.row.id}"
    assert said.serial == certificate_serial(SERIAL)
    assert (said.valid_after, said.valid_before) == (now - timedelta(seconds=30), now + timedelta(minutes=2))
    assert said.extensions == ("permit-pty",)


def test_a_certificate_never_outlives_the_grant() -> None:
    """The target's own check, should the broker's fail."""
    opened = OpenedSsh()
    end = opened.plane.clock.now() + timedelta(seconds=40)
    opened.change_grant(expires_at=end)
    assert opened.read(opened.credential()).valid_before == end


def test_a_clients_certificate_opens_no_target() -> None:
    """Two authorities: what ``sign`` may make for clients is nothing to a target's sshd, and the other way round."""
    opened = OpenedSsh()
    credential = opened.credential()
    keys = opened.stores.keys.public_keys(KeyPurpose.SSH_USER.value)
    with pytest.raises(ProofInvalid):
        verify_certificate(credential.certificate, keys, now=opened.plane.clock.now(), login=credential.login)


def test_a_stored_private_key() -> None:
    """For targets that know no authority: the key leaves the secret store for this connection, and signs nothing."""
    credential = OpenedSsh("legacy").credential()
    assert (credential.kind, credential.login) == ("private_key", "legacy")
    assert (credential.secret.expose(), credential.certificate) == (PASSWORD, "")


@pytest.mark.parametrize("public_key", ["", "ssh-ed25519 AAAA", "ssh-rsa x\ny"])
def test_a_certificate_over_no_key_is_refused_before_the_connection_has_had_its_credential(public_key: str) -> None:
    """A mistake of the broker's, which it may correct: one connection gets one credential, and this was none."""
    opened = OpenedSsh()
    good, opened.public_key = opened.public_key, public_key
    with pytest.raises(BadRequest):
        opened.credential()
    assert opened.plane.events.names()[-1] == "credential.refused"
    opened.public_key = good
    assert opened.credential().kind == "certificate"


def test_a_certificate_is_minted_once() -> None:
    """A second one would be over a key that is not this connection's."""
    opened = OpenedSsh()
    opened.credential()
    with pytest.raises(ProofInvalid, match="has had"):
        opened.credential()


def _forged_answers(opened: Opened) -> None:
    for key, answer in opened.stores.answers.rows.items():
        opened.stores.answers.rows[key] = replace(answer, person=key[1], approved=True, signature="a.b.c")


def _granted_without_asking(opened: Opened) -> None:
    """What a stolen API role could write: a grant on orders-prod that no person approved."""
    opened.stores.answers.rows.clear()
    opened.stores.uses.rows.clear()
    opened.change_session(ask_id=None)
    opened.change_grant(met=())


def _grant_names_rules_it_has_not(opened: Opened) -> None:
    opened.change_session(ask_id=None)


def _withdrawn(opened: Opened) -> None:
    for key, use in opened.stores.uses.rows.items():
        opened.stores.uses.rows[key] = replace(use, kind=UseKind.WITHDRAWN)


def _moved_to_a_child(opened: Opened) -> None:
    """What a stolen API role could write: the session that people approved for one actor, as another's of the chain,
    with a target hop that the broker then signs under it."""
    plane, key, parent = opened.plane, Key(), Key()
    (hop,) = (hop for hop in opened.stores.chains.rows.values() if hop.kind is HopKind.ORIGIN)
    plane.child(plane.token(run_id="5002", key=parent), key, by=parent)
    child = next(hop for hop in opened.stores.chains.rows.values() if hop.kind is HopKind.DELEGATE)
    moved = sign_hop(
        opened.stores.signer("token"),
        replace(child, txn=hop.txn, parent=hop.id, parent_sha256=hop.sha256(), originator=hop.originator),
    )
    opened.stores.chains.put(moved)
    opened.change_session(leaf_hop=moved.id, actor=moved.actor)
    _hop_of(opened, txn=hop.txn, parent=moved.id, parent_sha256=moved.sha256(), depth=2, originator=hop.originator)


def _other_rules(opened: Opened) -> None:
    closed = '@id("closed") forbid (principal, action, resource == Target::"orders-prod");\n'
    opened.plane.bundles.activate(policy=FILES["policies/main.cedar"] + closed)


def _changed_origin(opened: Opened) -> None:
    for key, hop in opened.stores.chains.rows.items():
        if hop.kind is HopKind.ORIGIN:
            opened.stores.chains.rows[key] = replace(hop, teams=("pipeline", "admins"))


def _narrower_origin(opened: Opened) -> None:
    """A run that was only ever let in for another target, whatever its session says."""
    (origin,) = (hop for hop in opened.stores.chains.rows.values() if hop.kind is HopKind.ORIGIN)
    narrow = sign_hop(opened.stores.signer("token"), replace(origin, scope=("orders-dev",)))
    opened.stores.chains.rows[narrow.txn, narrow.depth, narrow.id] = narrow
    _hop_of(opened)


def _hop_of(opened: Opened, **changed: Any) -> None:
    opened.hop = opened.put_hop(**changed)
    opened.put_row()


def _revoke(opened: Opened, key: str) -> None:
    opened.stores.revocations.revoke(key, by="ops", why="test", at=opened.plane.clock.now())


ATTACKS: dict[str, tuple[Callable[[Opened], object], type[AccessError]]] = {
    "no connection row": (lambda o: o.stores.connections.rows.clear(), NotFound),
    "a sealed connection": (lambda o: o.put_row(sealed_at=o.plane.clock.now()), ProofInvalid),
    "a connection of a minute ago": (lambda o: o.plane.clock.advance(61), ProofInvalid),
    "a connection of the future": (
        lambda o: o.put_row(opened_at=o.plane.clock.now() + timedelta(seconds=31)),
        ProofInvalid,
    ),
    "another target in the row": (lambda o: o.put_row(target="orders-dev"), ProofInvalid),
    "another login in the row": (lambda o: o.put_row(principal="root"), ProofInvalid),
    "another chain in the row": (lambda o: o.put_row(txn="01m6dsg7e0pbvvkxmpvansh0q7"), ProofInvalid),
    "the asker's hop instead of the target's": (lambda o: o.put_row(target_hop=o.session.leaf_hop), ProofInvalid),
    "no target hop": (lambda o: o.put_row(target_hop="hop_x"), ProofInvalid),
    "a target hop of another target": (lambda o: _hop_of(o, target="orders-dev"), ProofInvalid),
    "a target hop of another login": (lambda o: _hop_of(o, principal="root"), ProofInvalid),
    "a target hop signed by the token key": (lambda o: _hop_of(o, key="token"), ProofInvalid),
    "a target hop signed by the answer key": (lambda o: _hop_of(o, key="answer"), ProofInvalid),
    "an origin that was changed": (_changed_origin, ProofInvalid),
    "a target outside the scope of the run": (_narrower_origin, ProofInvalid),
    "a session that waits": (lambda o: o.change_session(status="pending"), ProofInvalid),
    "a session that is closed": (
        lambda o: o.stores.sessions.close(o.session_id, "x", o.plane.clock.now()),
        ProofInvalid,
    ),
    "a grant that is over": (lambda o: o.change_grant(expires_at=o.plane.clock.now()), GrantExpired),
    "a grant of another session": (lambda o: o.change_grant(session_id="ses_x"), ProofInvalid),
    "a revoked session": (lambda o: _revoke(o, f"session:{o.session_id}"), GrantRevoked),
    "a revoked chain": (lambda o: _revoke(o, f"txn:{o.session.txn}"), GrantRevoked),
    "a revoked target": (lambda o: _revoke(o, "target:orders-prod"), GrantRevoked),
    "answers that nobody signed": (_forged_answers, ProofInvalid),
    "no answers": (lambda o: o.stores.answers.rows.clear(), ProofInvalid),
    "an approval that was withdrawn": (_withdrawn, ProofInvalid),
    "an approval of what another actor asked": (_moved_to_a_child, ProofInvalid),
    "an approval that was never used": (lambda o: o.stores.uses.rows.clear(), ProofInvalid),
    "a grant that the API's role made up": (_granted_without_asking, PolicyDenied),
    "a grant that names approvals it has not": (_grant_names_rules_it_has_not, PolicyDenied),
    "rules that forbid it by now": (_other_rules, PolicyDenied),
    "a target that is gone": (
        lambda o: o.plane.bundles.activate(targets=FILES["targets.yaml"].replace("orders-prod", "orders-old")),
        PolicyDenied,
    ),
    "a secret that cannot be read": (lambda o: o.stores.fail("secrets"), StoreUnavailable),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_credential(name: str) -> None:
    """Invoking ``mint`` is no authority: each piece of evidence, missing or forged, refuses, and is audited."""
    attack, kind = ATTACKS[name]
    opened = Opened()
    attack(opened)
    with pytest.raises(kind):
        opened.mint()
    assert opened.plane.events.names()[-1] == "credential.refused"


def test_one_connection_gets_one_credential() -> None:
    """A second call for the same row is somebody else's, or a bug; either way it learns nothing."""
    opened = Opened()
    opened.mint()
    with pytest.raises(ProofInvalid, match="has had"):
        opened.mint()


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"session_id": "ses_1"},
        {"session_id": 1, "connection_id": 2},
        {"session_id": "x" * 65, "connection_id": "c"},
    ],
)
def test_a_malformed_call(payload: dict[str, Any]) -> None:
    """What is not two ids is refused before any table is asked."""
    opened = Opened("orders-dev")
    opened.stores.fail("connections", "sessions")
    with pytest.raises(AccessError, match=r"missing|not one of ours"):
        opened.stores.functions.invoke("mint", payload)


def test_ids_of_nothing() -> None:
    """The broker is not believed to have a session because it names one."""
    opened = Opened("orders-dev")
    with pytest.raises(NotFound):
        opened.plane.mint(SessionId("ses_none"), ConnectionId("con_none"))
