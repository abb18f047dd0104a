"""Says what is wrong with a signature of ours, where one does not verify: for findings, which name it to an auditor.

Decides nothing: ``identity.jws`` has refused it already. The cases are told apart by what an auditor does next: a value
that changed after it was signed points at whoever can write it; a key that is not ours points at whoever made the copy.
"""

from __future__ import annotations

from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.signature import KeyPurpose, signed_payload
from chalicelib.domain.store import Keys
from chalicelib.identity.compact import Malformed, take_apart
from chalicelib.identity.jws import verify_sha256
from chalicelib.services.reviewed import Finding, FindingKind


def signature_finding(
    key: str, keys: Keys, purpose: KeyPurpose, typ: str, signature: str, sha256: str
) -> Finding | None:
    """Return what is wrong with the signature over ``sha256`` on the thing that ``key`` names; None where it holds.

    Raises StoreUnavailable where the keys cannot be read.
    """
    try:
        verify_sha256(keys, purpose, typ, signature, sha256)
    except ProofInvalid:
        kind, what = _fault(keys, purpose, signature, sha256)
        return Finding(key=key, kind=kind, what=what)
    return None


def _fault(keys: Keys, purpose: KeyPurpose, signature: str, sha256: str) -> tuple[FindingKind, str]:
    try:
        parts = take_apart(signature)
    except Malformed:
        return FindingKind.ALTERED, "does not verify: what stands for its signature is none"
    if parts.payload != signed_payload(sha256):
        return FindingKind.ALTERED, "does not verify: it was changed after it was signed"
    if parts.kid not in keys.public_keys(purpose.value):
        return FindingKind.OTHER_KEY, f"does not verify: it is signed by another key than the {purpose.value} key"
    return FindingKind.OTHER_KEY, f"does not verify: the {purpose.value} key that it names did not sign it"
