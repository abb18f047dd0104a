"""Opens the issuer's token that began a chain, for who may review that chain, once it has expired.

Rules: the caller is a person or workload whom a rule permits ``chain:review`` (what is forbidden and what is not there
are one answer); the chain is verified, the object is the one that its origin hop names; before the token's end, and
some minutes more for verifiers whose clocks are behind, it is nobody's. The end is bound to the encryption, and
compared with the token's own once it is open: no forged object is opened early. Every opening and refusal is an audit
event, and the token is in none. Runs in the ``open_token`` function, whose role alone may decrypt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chalicelib.config.bundle import Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, NotFound, ProofInvalid, ProofSealed
from chalicelib.domain.identifiers import TXN, Txn
from chalicelib.domain.kept_proof import IssuerProof, KeptProof, kept_key, proof_sha256, read_kept, read_proof
from chalicelib.domain.store import Chains, Objects, Vault
from chalicelib.identity.compact import Malformed, json_object, take_apart
from chalicelib.services.access import CHAIN_REVIEW
from chalicelib.services.evidence import Evidence
from chalicelib.services.identify import Caller
from chalicelib.services.permitted import permits

WHAT: Final = "token"  # ``context.what`` of the question whether the caller may


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedProof:
    """An origin hop and its issuer's proof, and the object that it was sealed in."""

    hop: Hop
    kept: KeptProof
    proof: IssuerProof


class OpenToken:
    """Opens kept proofs. Writes nothing but the audit."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        chains: Chains,
        evidence: Evidence,
        objects: Objects,
        vault: Vault,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._chains = chains
        self._evidence = evidence
        self._objects = objects
        self._vault = vault
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, txn: str) -> OpenedProof:
        """Return the proof that ``txn`` began with. Idempotent.

        Raises NotFound for what is not there, keeps none, or the caller may not see; ProofSealed before its time;
        ProofInvalid where the chain or the object is not what was signed; StoreUnavailable, ConfigurationInvalid.
        """
        try:
            opened = self._opened(caller, txn)
        except AccessError as error:
            self._record(AuditName.PROOF_REFUSED, caller, txn, error.code)
            raise
        self._record(AuditName.PROOF_OPENED, caller, txn, "")
        return opened

    def _opened(self, caller: Caller, txn: str) -> OpenedProof:
        now = self._clock.now()
        allowed = permits(self._bundles.current(), caller, CHAIN_REVIEW, WHAT, now) is not None
        root = self._root(Txn(txn)) if allowed and TXN.match(txn) else None
        if root is None or not root.evidence.kept_sha256:
            raise NotFound("there is no such chain, it keeps no token, or you may not see it", hint="Check the id.")
        body = self._objects.get(kept_key(root.txn, root.evidence.kept_sha256))
        kept = read_kept(body)
        claims = (kept.txn, kept.claims_sha256)
        if sha256_hex(body) != root.evidence.kept_sha256 or claims != (root.txn, root.evidence.claims_sha256):
            raise ProofInvalid("the kept proof is not the one that the hop names", txn=txn)
        _require_spent(kept.readable_at(), now, kept)
        return OpenedProof(hop=root, kept=kept, proof=self._proof(kept, now))

    def _root(self, txn: Txn) -> Hop | None:
        hops = self._chains.hops(txn)
        origins = [hop for hop in hops.values() if hop.kind is HopKind.ORIGIN]
        return self._evidence.chain(txn, origins[0].id).leaf if len(origins) == 1 else None

    def _proof(self, kept: KeptProof, now: datetime) -> IssuerProof:
        plain = self._vault.open(kept.data, kept.context())
        if proof_sha256(plain) != kept.proof_sha256:
            raise ProofInvalid("the kept proof is not the one that it names")
        proof = read_proof(plain)
        try:
            ends = json_object(take_apart(proof.token.expose()).payload).get("exp")
        except Malformed:
            ends = None
        if not isinstance(ends, int) or isinstance(ends, bool):
            raise ProofInvalid("the kept token says no end")
        _require_spent(datetime.fromtimestamp(ends, UTC) + (kept.readable_at() - kept.expires_at), now, kept)
        return proof

    def _record(self, name: AuditName, caller: Caller, txn: str, code: str) -> None:
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                subject=txn if TXN.match(txn) else "",
                code=code,
                txn=txn if TXN.match(txn) else "",
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
                why=f"by a caller of {caller.chain.txn}",
            )
        )


def _require_spent(readable_at: datetime, now: datetime, kept: KeptProof) -> None:
    if now < readable_at:
        raise ProofSealed("the issuer's token has not expired yet", txn=kept.txn)
