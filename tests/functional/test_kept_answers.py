"""An Answer is evidence by itself: the blocks that its approver saw, their digest, and who that is at the IdP."""

from __future__ import annotations

import dataclasses
import json

from chalicelib.domain.ask import Answer
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.errors import ProofInvalid
from chalicelib.identity.jws import verify_answer
from chalicelib.services.reviewed import FindingKind
from chalicelib.services.verify import Anchor, EvidenceSource, verify
from tests.fakes.archive import Archive
from tests.fakes.clock import FakeClock
from tests.fakes.control_plane import CHANNEL, TEAM, ControlPlane

# What the signature covers, and what would be another answer.
OTHERWISE = {
    "person": "mallory",
    "digest": "0" * 64,
    "card_sha256": "0" * 64,
    "via": "slack:T/U/C/1",
    "groups": ("sre",),
}


def test_an_answer_keeps_what_was_shown_to_whom(plane: ControlPlane) -> None:
    """Who approved must be able to say, years later: this, and nothing else, stood on the card that I clicked."""
    plane.ask(plane.token(), "orders-prod")
    plane.poster.reconcile()
    (card,) = plane.workspace.cards
    shown = json.loads(json.dumps(card.blocks))
    plane.click(card, "UALICE")
    (answer,) = plane.stores.answers.rows.values()
    assert answer.person == "alice", "the id at the identity provider, as approvers.yaml has it, and no Slack name"
    assert answer.via.startswith(f"slack:{TEAM}/UALICE/{CHANNEL}/")
    kept = json.loads(answer.card)
    assert answer.card_sha256 == sha256_hex(answer.card.encode()) == sha256_hex(canonical(kept))
    assert [block["type"] for block in kept] == [block["type"] for block in shown]
    assert answer.digest == plane.stores.asks.get(answer.ask_id).digest
    verify_answer(answer, plane.stores.keys)
    for name, value in OTHERWISE.items():
        assert not holds(plane, dataclasses.replace(answer, **{name: value})), name  # type: ignore[arg-type]


def holds(plane: ControlPlane, answer: Answer) -> bool:
    try:
        verify_answer(answer, plane.stores.keys)
    except ProofInvalid:
        return False
    return True


def test_a_kept_card_that_was_replaced_is_named() -> None:
    """Attack: the row is given another card, to say that its approver was shown something else."""
    archive = Archive()
    for place, answer in archive.stores.answers.rows.items():
        archive.stores.answers.rows[place] = dataclasses.replace(answer, card='[{"type":"divider"}]')
    source = EvidenceSource(stores=archive.stores, anchor=Anchor.AWS)
    found = verify(archive.txn, source, None, FakeClock())
    assert not found.holds
    assert FindingKind.ALTERED in {one.kind for one in found.findings}
