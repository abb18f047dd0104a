"""Writes what a release leaves behind: ``python -m tests.vectors.make_release tests/vectors/v0.1``, once for each.

``bucket.zip`` is a whole bucket of one small deployment, digested and signed; ``rows.json`` every kind of row as its
table has it; ``keys.json`` and ``trust.txt`` what verifies them; ``mint.json`` what brokers and ``mint`` said to each
other. A folder is made by the release that it is named for and never again: today's code reads it
(``tests/functional/test_releases.py``), and a failure there is an upgrade that would break. Keys and ids are random.
"""

from __future__ import annotations

import json
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.activation import Activation
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.identifiers import new_legal_hold_id
from chalicelib.domain.legal_hold import HeldKind, LegalHold, Lift, hold_key, lift_key
from chalicelib.domain.revocation import Revocation
from chalicelib.services.anchors import EVIDENCE_PURPOSES, fingerprints, trust_text
from chalicelib.store.documents import to_document
from tests.fakes import samples
from tests.fakes.digested import HOUR_S, Digested
from tests.fakes.whole_copy import surround

_FIRST_YEAR: Final = (1980, 1, 1, 0, 0, 0)  # a zip has a date for each file, and this one says that it means nothing


def whole() -> Digested:
    """Return a deployment in memory with one of everything that is put into a bucket."""
    on = Digested(young=True)
    surround(on)
    hold = LegalHold(
        id=new_legal_hold_id(on.clock.now()),
        kind=HeldKind.CHAIN,
        subject=on.archive.txn,
        since=on.clock.now().date(),
        reason="litigation 7",
        by="https://idp.example.com#carol",
        hop="hop_01m6dsg7e0fwejtv7egfb0rbxm",
        at=on.clock.now(),
    )
    later = on.clock.now() + timedelta(minutes=1)
    lift = Lift(id=hold.id, reason="settled", by=hold.by, hop=hold.hop, at=later)
    for key, body in ((hold_key(hold), hold.stored()), (lift_key(lift), lift.stored())):
        on.stores.objects.put_new(key, body, content_type="application/json")
    on.pump()
    on.clock.advance(HOUR_S + 700)
    on.digest()
    on.clock.advance(HOUR_S)
    on.digest()
    return on


def rows(on: Digested) -> dict[str, list[str]]:
    """Return each table's documents, with what an archive has not: a session's verifier."""
    stores = on.stores
    kept: dict[str, Any] = {
        "chains": stores.chains,
        "sessions": stores.sessions,
        "connections": stores.connections,
        "asks": stores.asks,
        "answers": stores.answers,
        "uses": stores.uses,
    }
    found = {table: [to_document(row) for row in store.rows.values()] for table, store in kept.items()}
    pending = samples.session()
    activation = stores.activations.latest()
    restored = Activation(
        serial=2,
        bundle_digest=activation.bundle_digest,
        previous_digest=activation.bundle_digest,
        author="ada",
        activated_at=on.clock.now(),
        epoch_at=on.clock.now(),
    )
    return {
        **found,
        "sessions": [*found["sessions"], to_document(pending)],
        "activations": [to_document(activation), to_document(restored)],
        "revocations": [to_document(Revocation(key="hop:x", number=1, by="carol", why="", at=on.clock.now()))],
    }


def mint_messages(on: Digested) -> dict[str, Json]:
    """Return what a broker asks ``mint``, and its answers, in the shape in which both write them."""
    row = next(iter(on.stores.connections.rows.values()))
    return {
        "requests": [
            {"session_id": row.session_id, "connection_id": row.id},
            {"session_id": row.session_id, "connection_id": row.id, "public_key": "ssh-ed25519 AAAA"},
        ],
        "answers": [
            {"kind": "password", "login": "app", "secret": "minted", "certificate": ""},
            {"kind": "private_key", "login": "deploy", "secret": "-----BEGIN", "certificate": ""},
            {"kind": "certificate", "login": "deploy", "secret": "", "certificate": "ssh-ed25519-cert AAAA"},
        ],
        "refused": {"code": "grant_revoked", "public": "the session was revoked", "hint": ""},
    }


def write(folder: Path) -> None:
    """Write one release's folder. Raises FileExistsError where it is there: a release is made once."""
    on = whole()
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "bucket.zip", "x", zipfile.ZIP_DEFLATED) as bucket:
        for key, body in sorted(on.stores.objects.rows.items()):
            bucket.writestr(zipfile.ZipInfo(key, _FIRST_YEAR), body)
    keys = {one.value: {"keys": list(on.stores.keys.public_keys(one.value).values())} for one in EVIDENCE_PURPOSES}
    told: dict[str, Any] = {
        "rows.json": rows(on),
        "mint.json": mint_messages(on),
        "keys.json": keys,
        "now.json": {"now": timestamp(on.clock.now())},
    }
    for name, value in told.items():
        (folder / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    (folder / "trust.txt").write_text(trust_text(fingerprints(on.stores.keys), on.clock.now()), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
