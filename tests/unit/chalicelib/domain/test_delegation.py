"""What a ticket's signature covers."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from chalicelib.domain.delegation import TICKET_SIGNATURE_TYPE, ByIssuer, ByKey, Redeemer, Ticket
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import HopId, TicketId, Txn
from chalicelib.identity.jws import sign_sha256, sign_ticket, verify_ticket
from tests.fakes import samples
from tests.fakes.clock import START
from tests.fakes.signer import MemoryKeys


def test_the_hash_covers_every_field_of_a_ticket() -> None:
    """Whoever can write the table could otherwise name themselves, or widen what was signed."""
    ticket = samples.ticket()
    other = {
        "id": TicketId("x"),
        "txn": Txn("x"),
        "parent": HopId("x"),
        "parent_sha256": "x",
        "redeemer": ByKey(thumbprint="x"),
        "name": "x",
        "scope": ("*",),
        "max_depth": 9,
        "hop_expires_at": ticket.hop_expires_at + timedelta(milliseconds=1),
        "rules": (),
        "issued_at": START + timedelta(milliseconds=1),
        "expires_at": ticket.expires_at + timedelta(milliseconds=1),
    }
    assert set(other) == {field.name for field in dataclasses.fields(Ticket)} - {"signature"}
    for name, value in other.items():
        assert samples.changed(ticket, **{name: value}).sha256() != ticket.sha256(), name
    assert dataclasses.replace(ticket, signature="x").sha256() == ticket.sha256()


def test_the_hash_tells_redeemers_apart() -> None:
    """One claim more or less, or another issuer with the same claims, is another redeemer."""
    redeemers: list[Redeemer] = [
        ByIssuer(issuer="https://a.example.com", claims=(("sub", "tool"),)),
        ByIssuer(issuer="https://b.example.com", claims=(("sub", "tool"),)),
        ByIssuer(issuer="https://a.example.com", claims=(("sub", "tool"), ("uid", "7"))),
        ByIssuer(issuer="https://a.example.com", claims=(("sub", "other"),)),
        ByKey(thumbprint="tool"),
    ]
    ticket = samples.ticket()
    assert len({dataclasses.replace(ticket, redeemer=one).sha256() for one in redeemers}) == len(redeemers)


def test_only_the_token_key_signs_a_ticket_and_only_as_one() -> None:
    """The API can write the table and has no key; a signature over something else of ours stands for no ticket."""
    keys, ticket = MemoryKeys(), samples.ticket()
    verify_ticket(sign_ticket(keys.signer("token"), ticket), keys)
    as_hop = sign_sha256(keys.signer("token"), "countersign-hop+jws", ticket.sha256())
    by_broker = sign_sha256(keys.signer("record"), TICKET_SIGNATURE_TYPE, ticket.sha256())
    for signature in ("", "x.y.z", as_hop, by_broker):
        with pytest.raises(ProofInvalid):
            verify_ticket(dataclasses.replace(ticket, signature=signature), keys)
