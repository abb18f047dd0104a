"""``certify``: a certificate for the caller's own granted ssh session, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.domain.errors import (
    AccessError,
    BadRequest,
    Conflict,
    GrantExpired,
    GrantRevoked,
    KeyProofInvalid,
    NotFound,
    PolicyDenied,
    ProofInvalid,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
)
from chalicelib.domain.identifiers import SessionId
from chalicelib.domain.session import Session
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.ssh_certificates import UserCertificate, verify_certificate
from chalicelib.services.assembly import sign_services
from chalicelib.services.certify import Certified
from tests.fakes.control_plane import ControlPlane
from tests.fakes.keys import Key
from tests.unit.chalicelib.services.ssh_targets import SSH_FILES, new_public_key


class Opened:
    """A granted session of a run whose hop is bound to a key."""

    def __init__(self, target: str = "db-host", **body: Any) -> None:
        self.plane = ControlPlane(files=SSH_FILES)
        self.key = Key()
        self.token = self.plane.token(key=self.key)
        answer = self.plane.ask(self.token, target, by=self.key, **body)
        assert answer.status_code in (201, 202), answer.json_body
        self.session_id = SessionId(answer.json_body["session_id"])
        self.public_key = new_public_key()
        self.method, self.path = "POST", ""

    @property
    def session(self) -> Session:
        return self.plane.stores.sessions.rows[self.session_id]

    def change(self, **changed: Any) -> None:
        self.plane.stores.sessions.rows[self.session_id] = replace(self.session, **changed)

    def change_grant(self, **changed: Any) -> None:
        assert self.session.grant is not None
        self.change(grant=replace(self.session.grant, **changed))

    def certify(self, *, token: str = "", key: Key | None = None) -> Certified:
        path = self.path or f"/v1/sessions/{self.session_id}/certificate"
        presented = self.plane.presented(token or self.token, self.method, path, key or self.key)
        work = sign_services(self.plane.parts, self.plane.issuer_keys)
        return work.certify(presented, self.session_id, self.public_key)

    def read(self, certified: Certified) -> UserCertificate:
        """Return what the broker's sshd finds in it."""
        keys = self.plane.stores.keys.public_keys(KeyPurpose.SSH_USER.value)
        return verify_certificate(certified.certificate, keys, now=self.plane.clock.now(), login=self.session_id)


def test_a_certificate_names_the_session_and_the_chain() -> None:
    """What sshd logs leads back to the chain; what it opens is this session and no other."""
    opened = Opened()
    certified = opened.certify()
    said = opened.read(certified)
    session = opened.session
    now = opened.plane.clock.now()
    assert said.principals == (opened.session_id,)
    assert said.key_id == f"txn:{session.txn} ses:{session.id} hop:{session.leaf_hop}"
    assert said.public_key == opened.public_key
    assert said.extensions == ("permit-pty",)
    assert (said.valid_after, said.valid_before) == (now - timedelta(seconds=30), now + timedelta(minutes=5))
    assert certified.expires_at == said.valid_before
    event = opened.plane.events.seen[-1]
    assert (event.name.value, event.session_id, event.target) == ("certificate.issued", session.id, "db-host")
    assert f"serial {said.serial} key SHA256:" in event.why
    assert event.txn == session.txn


def test_it_never_outlives_the_grant() -> None:
    """A certificate that is still good when the session is over is asked about at every login."""
    opened = Opened()
    end = opened.plane.clock.now() + timedelta(seconds=90)
    opened.change_grant(expires_at=end)
    assert opened.read(opened.certify()).valid_before == end


def test_each_call_makes_another() -> None:
    """A client whose certificate ran out asks again, with the same key or a new one."""
    opened = Opened()
    first, second = (opened.read(opened.certify()) for _ in range(2))
    assert first.serial != second.serial


def _another_key(opened: Opened) -> None:
    opened.key = Key()


def _another_run(opened: Opened) -> None:
    opened.key = Key()
    opened.token = opened.plane.token(key=opened.key, run_id="5002")


def _a_child(opened: Opened) -> None:
    """A delegate below the session's own hop: it has a hop, and asks for sessions, of its own."""
    key = Key()
    opened.token = opened.plane.child(opened.token, key, by=opened.key)
    opened.key = key


def _another_request(opened: Opened, method: str, path: str) -> None:
    """A stolen API role has what the caller presented with some other request, and a key of its own."""
    opened.method, opened.path = method, path


def _not_a_session(opened: Opened) -> None:
    opened.session_id = SessionId("../../etc/passwd")


def _nobodys(opened: Opened) -> None:
    opened.session_id = SessionId("ses_01k9vq3v5000000000000000aa")


def _a_narrower_token(opened: Opened) -> None:
    answer = opened.plane.refresh(opened.token, key=opened.key, scope="orders-dev")
    assert answer.status_code == 200, answer.json_body
    opened.token = str(answer.json_body["access_token"])


def _revoke(opened: Opened, key: str) -> None:
    opened.plane.stores.revocations.revoke(key, by="ops", why="test", at=opened.plane.clock.now())


def _grant(opened: Opened) -> str:
    assert opened.session.grant is not None
    return f"grant:{opened.session.grant.id}"


def _without_the_target(opened: Opened) -> None:
    opened.plane.bundles.activate(targets=SSH_FILES["targets.yaml"].replace("db-host:", "other-host:"))


ATTACKS: dict[str, tuple[Callable[[Opened], object], type[AccessError]]] = {
    "a thief of the token without its key": (_another_key, KeyProofInvalid),
    "no token": (lambda o: setattr(o, "token", "x.y.z"), TokenInvalid),
    "a token of an hour ago": (lambda o: o.plane.clock.advance(3600), TokenExpired),
    "another run of the same repository": (_another_run, NotFound),
    "a delegate of the session's owner": (_a_child, NotFound),
    "an id that is a path": (_not_a_session, NotFound),
    "a session that is not there": (_nobodys, NotFound),
    "a proof for a look at the targets": (lambda o: _another_request(o, "GET", "/v1/targets"), KeyProofInvalid),
    "a proof for a look at the session": (
        lambda o: _another_request(o, "GET", f"/v1/sessions/{o.session_id}"),
        KeyProofInvalid,
    ),
    "a proof for another session's certificate": (
        lambda o: _another_request(o, "POST", "/v1/sessions/ses_01k9vq3v5000000000000000aa/certificate"),
        KeyProofInvalid,
    ),
    "a token that was narrowed to something else": (_a_narrower_token, PolicyDenied),
    "a session that waits for people": (lambda o: o.change(status="pending", grant=None), Conflict),
    "a session that is closed": (
        lambda o: o.plane.stores.sessions.close(o.session_id, "x", o.plane.clock.now()),
        GrantRevoked,
    ),
    "a grant that is not there": (lambda o: o.change(grant=None), ProofInvalid),
    "a grant of another session": (lambda o: o.change_grant(session_id="ses_x"), ProofInvalid),
    "a grant that is over": (lambda o: o.change_grant(expires_at=o.plane.clock.now()), GrantExpired),
    "a grant of tomorrow": (
        lambda o: o.change_grant(not_before=o.plane.clock.now() + timedelta(days=1)),
        GrantExpired,
    ),
    "a revoked session": (lambda o: _revoke(o, f"session:{o.session_id}"), GrantRevoked),
    "a revoked grant": (lambda o: _revoke(o, _grant(o)), GrantRevoked),
    "a revoked hop": (lambda o: _revoke(o, f"hop:{o.session.leaf_hop}"), GrantRevoked),
    "a revoked target": (lambda o: _revoke(o, "target:db-host"), GrantRevoked),
    "a target that is gone": (_without_the_target, PolicyDenied),
    "a public key that is none": (lambda o: setattr(o, "public_key", "ssh-rsa AAAA"), BadRequest),
    "two public keys": (lambda o: setattr(o, "public_key", f"{o.public_key}\n{o.public_key}"), BadRequest),
    "sessions that cannot be read": (lambda o: o.plane.stores.fail("sessions"), StoreUnavailable),
    "revocations that cannot be read": (lambda o: o.plane.stores.fail("revocations"), StoreUnavailable),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_certificate(name: str) -> None:
    """Invoking ``sign`` is no authority; each of these is refused, and each refusal is an audit event."""
    attack, kind = ATTACKS[name]
    opened = Opened()
    attack(opened)
    with pytest.raises(kind) as refusal:
        opened.certify()
    event = opened.plane.events.seen[-1]
    assert (event.name.value, event.code) == ("certificate.refused", refusal.value.code)
    assert "/" not in event.session_id


def test_a_postgres_session_has_no_certificate() -> None:
    """Its clients cannot show one; the secret is theirs."""
    opened = Opened("orders-dev")
    with pytest.raises(BadRequest, match="postgres"):
        opened.certify()


def test_over_the_function_a_proof_counts_where_the_request_came_in() -> None:
    """``sign`` checks the proof that the API counted; it must not refuse it as used."""
    opened = Opened()
    path = f"/v1/sessions/{opened.session_id}/certificate"
    answer = opened.plane.post(path, opened.token, {"ssh_public_key": opened.public_key}, by=opened.key)
    assert answer.status_code == 200, answer.json_body
    assert set(answer.json_body) == {"certificate", "expires_at"}
