"""Our signatures over hops, tickets, answers, manifests, activations and digests: what each kind is signed by, alone.

A signature covers the SHA-256 of a canonical value (``domain.signature``). Rules: ES256 alone; the header is exactly
``alg``, ``kid`` and ``typ``; ``typ`` must be the kind's own and the key one of the kind's own purpose, so that the
answer key can sign no hop and the broker's key no answer, whatever a thief of one writes (RFC 8725 section 3.11).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from chalicelib.domain.activation import ACTIVATION_SIGNATURE_TYPE, Activation
from chalicelib.domain.ask import ANSWER_SIGNATURE_TYPE, Answer
from chalicelib.domain.chain import HOP_SIGNATURE_TYPE, Hop, HopKind
from chalicelib.domain.connection import BOOT_SIGNATURE_TYPE, BootEnd
from chalicelib.domain.copy_statement import COPY_SIGNATURE_TYPE, CopyStatement
from chalicelib.domain.delegation import TICKET_SIGNATURE_TYPE, Ticket
from chalicelib.domain.digest import DIGEST_SIGNATURE_TYPE, HourlyDigest
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.recording import MANIFEST_SIGNATURE_TYPE, SWEEPER, Manifest
from chalicelib.domain.signature import KeyPurpose, signed_payload
from chalicelib.domain.signoff import SIGNOFF_SIGNATURE_TYPE, Signoff
from chalicelib.domain.store import Keys, Signer
from chalicelib.identity.compact import Malformed, is_as_we_write, verified_payload


def sign_sha256(signer: Signer, typ: str, sha256: str) -> str:
    """Return a compact JWS of type ``typ`` over a hash of 64 hexadecimal digits. Raises StoreUnavailable."""
    return signer.sign(typ, signed_payload(sha256))


def verify_sha256(keys: Keys, purpose: KeyPurpose, typ: str, signature: str, sha256: str) -> None:
    """Raise ProofInvalid unless ``signature`` is one of ``typ`` over ``sha256`` by a key of ``purpose``.

    Raises StoreUnavailable where the keys cannot be read.
    """
    known, expected = keys.public_keys(purpose.value), signed_payload(sha256)
    if is_as_we_write(signature, typ, expected, known):
        return
    try:
        payload = verified_payload(signature, typ, known)
    except Malformed as error:
        raise ProofInvalid("a signature does not verify", typ=typ, why=str(error)) from None
    if payload != expected:
        raise ProofInvalid("a signature does not verify", typ=typ, why="it is over something else")


def sign_hop(signer: Signer, hop: Hop) -> Hop:
    """Return ``hop`` signed. The signer must be the one of :func:`hop_purpose`, or nobody will believe it."""
    return replace(hop, signature=sign_sha256(signer, HOP_SIGNATURE_TYPE, hop.sha256()))


def verify_hop(hop: Hop, keys: Keys) -> None:
    """Raise ProofInvalid unless the hop's signature is good. Links between hops are ``domain.chain.chain_to``'s."""
    verify_sha256(keys, hop_purpose(hop), HOP_SIGNATURE_TYPE, hop.signature, hop.sha256())


def hop_purpose(hop: Hop) -> KeyPurpose:
    """Return whose key signs a hop of this kind: the broker's for the target, ``sign``'s for the others. Pure."""
    match hop.kind:
        case HopKind.ORIGIN | HopKind.DELEGATE:
            return KeyPurpose.TOKEN
        case HopKind.TARGET:
            return KeyPurpose.RECORD
        case _:
            assert_never(hop.kind)


def sign_ticket(signer: Signer, ticket: Ticket) -> Ticket:
    return replace(ticket, signature=sign_sha256(signer, TICKET_SIGNATURE_TYPE, ticket.sha256()))


def verify_ticket(ticket: Ticket, keys: Keys) -> None:
    """Raise ProofInvalid unless ``sign`` signed this ticket."""
    verify_sha256(keys, KeyPurpose.TOKEN, TICKET_SIGNATURE_TYPE, ticket.signature, ticket.sha256())


def sign_answer(signer: Signer, answer: Answer) -> Answer:
    return replace(answer, signature=sign_sha256(signer, ANSWER_SIGNATURE_TYPE, answer.sha256()))


def verify_answer(answer: Answer, keys: Keys) -> None:
    """Raise ProofInvalid unless ``decide`` signed this answer; and, where it has an assertion, unless that is over this
    answer too, by the passkey that the answer names: that it was the person's is the bundle's to say."""
    verify_sha256(keys, KeyPurpose.ANSWER, ANSWER_SIGNATURE_TYPE, answer.signature, answer.sha256())
    if answer.assertion is not None:
        # Imported where it is needed: it costs 60 ms of a cold start, and most answers are clicks.
        from chalicelib.identity.webauthn import verify_assertion

        verify_assertion(answer)


def sign_manifest(signer: Signer, manifest: Manifest) -> Manifest:
    return replace(manifest, signature=sign_sha256(signer, MANIFEST_SIGNATURE_TYPE, manifest.sha256()))


def verify_manifest(manifest: Manifest, keys: Keys) -> None:
    """Raise ProofInvalid unless a broker signed this manifest, or the sweeper one that says so."""
    verify_sha256(keys, manifest_purpose(manifest), MANIFEST_SIGNATURE_TYPE, manifest.signature, manifest.sha256())


def manifest_purpose(manifest: Manifest) -> KeyPurpose:
    """Return whose key signs this manifest: the sweeper's own where it says that the sweeper sealed it. Pure."""
    return KeyPurpose.SWEEP if manifest.sealed_by == SWEEPER else KeyPurpose.RECORD


def sign_boot_end(signer: Signer, closing: BootEnd) -> BootEnd:
    return replace(closing, signature=sign_sha256(signer, BOOT_SIGNATURE_TYPE, closing.sha256()))


def verify_boot_end(closing: BootEnd, keys: Keys) -> None:
    """Raise ProofInvalid unless a broker signed this closing of a boot."""
    verify_sha256(keys, KeyPurpose.RECORD, BOOT_SIGNATURE_TYPE, closing.signature, closing.sha256())


def sign_activation(signer: Signer, activation: Activation) -> Activation:
    return replace(activation, signature=sign_sha256(signer, ACTIVATION_SIGNATURE_TYPE, activation.sha256()))


def verify_activation(activation: Activation, keys: Keys) -> None:
    """Raise ProofInvalid unless somebody who may push configuration signed this activation."""
    verify_sha256(keys, KeyPurpose.ACTIVATION, ACTIVATION_SIGNATURE_TYPE, activation.signature, activation.sha256())


def sign_digest(signer: Signer, unsigned: HourlyDigest) -> HourlyDigest:
    return replace(unsigned, signature=sign_sha256(signer, DIGEST_SIGNATURE_TYPE, unsigned.sha256()))


def sign_copy(signer: Signer, statement: CopyStatement) -> CopyStatement:
    return replace(statement, signature=sign_sha256(signer, COPY_SIGNATURE_TYPE, statement.digest()))


def sign_signoff(signer: Signer, signoff: Signoff) -> Signoff:
    return replace(signoff, signature=sign_sha256(signer, SIGNOFF_SIGNATURE_TYPE, signoff.sha256()))
