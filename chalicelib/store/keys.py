"""KMS: one P-256 key a purpose, reached by its alias; signatures as JOSE wants them.

Rules: KMS gets the whole signing input (``MessageType=RAW``), so that a key policy can refuse bare digests, under which
anything might hide; it answers DER (RFC 3279 section 2.2.3), and a JWS holds ``r || s`` in 64 bytes (RFC 7518 section
3.4). The keys of the SSH purposes sign certificates and no JWS, the others JWS and no certificate. ``kid`` is the key's
own id, never the alias, which may come to mean another key.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.signature import KeyPurpose, check_signs_jws, checked_message, compact, signing_input
from chalicelib.settings import StoreSettings
from chalicelib.store.clients import Clients, calling

# As long as our JWKS may be cached (``Cache-Control: max-age=300``): a key that an alias newly names is known to every
# process within this time, which is how long both must live when keys are changed.
CACHE_S: Final = 300.0
BEFORE: Final = "-before"  # the alias of the key before: what it signed lives on for hours
_DENIED: Final = frozenset({"AccessDeniedException", "AccessDenied"})
_ABSENT: Final = _DENIED | {"NotFoundException"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _PublicKey:
    kid: str
    jwk: Mapping[str, str]
    read_at_s: float


class KmsKeys:
    """Implements ``domain.store.Keys``. Keeps each public key for ``CACHE_S``; the one before stays known as long as
    the process lives, and is read by an alias of its own, so that what it signed in good time still verifies."""

    def __init__(self, clients: Clients, settings: StoreSettings, clock: Clock) -> None:
        self._clients = clients
        self._prefix = settings.prefix
        self._clock = clock
        self._lock = threading.Lock()
        self._current: dict[str, _PublicKey] = {}
        self._known: dict[str, dict[str, Mapping[str, str]]] = {}

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        self.current(purpose)
        with self._lock:
            return dict(self._known[purpose])

    def current(self, purpose: str) -> str:
        """Return the ``kid`` of the key that signs for ``purpose`` now. Raises NotFound, StoreUnavailable."""
        with self._lock:
            found = self._current.get(purpose)
        if found is not None and self._clock.monotonic_s() - found.read_at_s < CACHE_S:
            return found.kid
        found, before = self._read(purpose, self.alias(purpose)), self._before(purpose)
        with self._lock:
            self._current[purpose] = found
            known = self._known.setdefault(purpose, {})
            known[found.kid] = found.jwk
            if before is not None:
                known[before.kid] = before.jwk
        return found.kid

    def alias(self, purpose: str) -> str:
        """Return the alias of the key that signs for ``purpose``."""
        return f"alias/{self._prefix}-{KeyPurpose(purpose).value}"

    def by_id(self, key_id: str) -> Mapping[str, str]:
        """Return the public JWK of one key. Raises NotFound, StoreUnavailable."""
        return self._read("", key_id).jwk

    def forget(self, purpose: str) -> None:
        """Read the key of ``purpose`` anew at its next use: its alias names another."""
        with self._lock:
            self._current.pop(purpose, None)

    def _before(self, purpose: str) -> _PublicKey | None:
        """Return the key that signed before the one of now; None where there is none, or none that this role may read:
        then what it signed does not verify here, which is a refusal and never a hole."""
        try:
            return self._read(purpose, f"{self.alias(purpose)}{BEFORE}")
        except NotFound:
            return None

    def _read(self, purpose: str, alias: str) -> _PublicKey:
        absent = _ABSENT if alias.endswith(BEFORE) else _ABSENT - _DENIED
        with calling("kms", lambda code: NotFound("there is no such key", purpose=purpose) if code in absent else None):
            answer = self._clients.keys().get_public_key(KeyId=alias)
        return self._public(answer, alias)

    def _public(self, answer: Mapping[str, Any], alias: str) -> _PublicKey:
        key = load_der_public_key(answer["PublicKey"])
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise StoreUnavailable("a key is not of the kind that signs here", alias=alias)
        kid = str(answer["KeyId"]).rpartition("/")[2]  # an ARN ends in key/ID
        numbers = key.public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y), "kid": kid}
        return _PublicKey(kid=kid, jwk=jwk, read_at_s=self._clock.monotonic_s())


class KmsSigner:
    """Implements ``domain.store.Signer`` with the key of one purpose."""

    def __init__(self, clients: Clients, keys: KmsKeys, purpose: KeyPurpose) -> None:
        self._clients = clients
        self._keys = keys
        self._purpose = purpose

    def sign(self, typ: str, payload: bytes) -> str:
        check_signs_jws(self._purpose)
        kid = self._keys.current(self._purpose.value)
        signing = signing_input(typ, kid, payload)
        return compact(signing, self._signature(kid, signing))

    def sign_bytes(self, message: bytes) -> bytes:
        checked = checked_message(self._purpose, message)
        return self._signature(self._keys.current(self._purpose.value), checked)

    @property
    def public_jwk(self) -> Mapping[str, str]:
        kid = self._keys.current(self._purpose.value)
        return self._keys.public_keys(self._purpose.value)[kid]

    def _signature(self, kid: str, message: bytes) -> bytes:
        return signed_bytes(self._clients, kid, message)


class KmsKeyRing:
    """Implements ``services.rotate_key.KeyRing``, with an operator's rights: kms:GetPublicKey and kms:Sign on the keys
    of now and of next, kms:DescribeKey, kms:CreateAlias and kms:UpdateAlias on the purpose's aliases and these keys."""

    def __init__(self, clients: Clients, keys: KmsKeys) -> None:
        self._clients = clients
        self._keys = keys

    def current(self, purpose: str) -> str:
        return self._keys.current(purpose)

    def jwk(self, key_id: str) -> dict[str, str]:
        return dict(self._keys.by_id(key_id))

    def sign(self, key_id: str, typ: str, payload: bytes) -> str:
        signing = signing_input(typ, key_id, payload)
        return compact(signing, signed_bytes(self._clients, key_id, signing))

    def point(self, purpose: str, *, now: str, before: str) -> None:
        alias = self._keys.alias(purpose)
        for name, key_id in ((f"{alias}{BEFORE}", before), (alias, now)):
            self._point(name, key_id)
        self._keys.forget(purpose)

    def _point(self, alias: str, key_id: str) -> None:
        kms = self._clients.keys()
        absent = NotFound("there is no such alias")
        try:
            with calling("kms", lambda code: absent if code == "NotFoundException" else None):
                kms.update_alias(AliasName=alias, TargetKeyId=key_id)
        except NotFound:
            with calling("kms"):
                kms.create_alias(AliasName=alias, TargetKeyId=key_id)


def signed_bytes(clients: Clients, kid: str, message: bytes) -> bytes:
    """Return ``r || s`` over ``message`` by the key ``kid``. Raises StoreUnavailable."""
    with calling("kms"):
        answer = clients.keys().sign(KeyId=kid, Message=message, MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")
    r, s = decode_dss_signature(answer["Signature"])
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _coordinate(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
