"""Envelope encryption with KMS: a data key for each thing that is sealed, AES-256-GCM here, the data key under KMS.

Rules: the context is KMS's encryption context and GCM's associated data both, so that neither the wrapped key nor the
text opens under another; one data key seals one text, so that its nonce is never used twice; the key is reached by its
alias to seal, and by what the wrapped key itself names to open. Who seals needs kms:GenerateDataKey and cannot open:
that is kms:Decrypt. Sources: AWS KMS Developer Guide, "Encryption context"; NIST SP 800-38D section 8.2.2 (random
nonces).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.domain.canonical import canonical
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.kept_proof import SealedData
from chalicelib.settings import StoreSettings
from chalicelib.store.clients import Clients, calling

KEPT_KEY: Final = "kept"  # the alias, after the prefix: its key opens kept proofs and nothing else
_NONCE_BYTES: Final = 12
_NO_SUCH: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})


class KmsVault:
    """Implements ``domain.store.Vault``."""

    def __init__(self, clients: Clients, settings: StoreSettings) -> None:
        self._clients = clients
        self._alias = f"alias/{settings.prefix}-{KEPT_KEY}"

    def seal(self, plain: bytes, context: Mapping[str, str]) -> SealedData:
        absent = NotFound("there is no such key")
        with calling("kms", lambda code: absent if code == "NotFoundException" else None):
            made = self._clients.keys().generate_data_key(
                KeyId=self._alias, KeySpec="AES_256", EncryptionContext=dict(context)
            )
        return sealed_with(bytes(made["Plaintext"]), bytes(made["CiphertextBlob"]), plain, context)

    def open(self, data: SealedData, context: Mapping[str, str]) -> bytes:
        refused = ProofInvalid("what was sealed does not open as this")
        with calling("kms", lambda code: refused if code in _NO_SUCH else None):
            found = self._clients.keys().decrypt(
                KeyId=self._alias, CiphertextBlob=data.data_key, EncryptionContext=dict(context)
            )
        return opened_with(bytes(found["Plaintext"]), data, context)


def sealed_with(key: bytes, wrapped: bytes, plain: bytes, context: Mapping[str, str]) -> SealedData:
    """Return ``plain`` under the data key ``key``, which is ``wrapped`` by whoever keeps it."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return SealedData(data_key=wrapped, nonce=nonce, sealed=AESGCM(key).encrypt(nonce, plain, canonical(context)))


def opened_with(key: bytes, data: SealedData, context: Mapping[str, str]) -> bytes:
    """Return the plain text. Raises ProofInvalid. Pure."""
    try:
        return AESGCM(key).decrypt(data.nonce, data.sealed, canonical(context))
    except (InvalidTag, ValueError):
        raise ProofInvalid("what was sealed does not open as this") from None
