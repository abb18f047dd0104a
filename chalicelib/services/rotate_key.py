"""Changes a purpose's signing key: the key of now introduces the next one, in the history, and then the next one signs.

Rules: the entry is put first, so that nothing is ever signed by a key that nobody introduced; it is signed by both keys
and put once, so that two operators who change one key at once leave one next key. The key before stays known to every
verifier. Repeated after it broke off, it finishes what was begun. For an operator, with rights of their own: no
function of the service can do it. Does not make keys, and disables none: infrastructure makes the next one, with its
policy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import BadRequest, Conflict
from chalicelib.domain.key_history import KEY_SIGNATURE_TYPE, KeyEntry, entry_key
from chalicelib.domain.signature import KeyPurpose, signed_payload
from chalicelib.domain.store import Objects
from chalicelib.services.anchors import key_thumbprint
from chalicelib.services.key_history import entry_thumbprint, read_history

_CONTENT_TYPE: Final = "application/json"


class KeyRing(Protocol):
    """The signing keys themselves, for an operator. A key is named by its own id, never by an alias."""

    def current(self, purpose: str) -> str:
        """Return the id of the key that signs for ``purpose`` now. Raises NotFound, StoreUnavailable."""
        ...

    def jwk(self, key_id: str) -> dict[str, str]:
        """Return its public JWK. Raises NotFound, and StoreUnavailable where it is no P-256 signing key."""
        ...

    def sign(self, key_id: str, typ: str, payload: bytes) -> str:
        """Return a compact JWS by this very key. Raises StoreUnavailable."""
        ...

    def point(self, purpose: str, *, now: str, before: str) -> None:
        """Let the key ``now`` sign for ``purpose``, and ``before`` be the one before it. Repeatable."""
        ...


class RotateKey:
    """Begins a purpose's history, and carries it on."""

    def __init__(self, *, objects: Objects, ring: KeyRing, clock: Clock, by: str) -> None:
        """``by`` is who does it, as AWS names them."""
        self._objects = objects
        self._ring = ring
        self._clock = clock
        self._by = by

    def begin(self, purpose: KeyPurpose) -> KeyEntry:
        """Put the first entry, of the key of now, and return it; where there is a history, its last entry. Raises
        Conflict where the history does not hold, or ends with another key than the one of now."""
        line = self._line(purpose)
        current = self._ring.current(purpose.value)
        if line:
            self._require_current(purpose, line[-1], current)
            return line[-1]
        return self._put(purpose, 1, current, None, "")

    def __call__(self, purpose: KeyPurpose, key_id: str) -> KeyEntry:
        """Let the key ``key_id`` sign for ``purpose`` from now on; return its entry. Repeatable.

        Raises NotFound, BadRequest for a key that is in the history already, Conflict where the history does not hold
        or somebody else changed the key meanwhile, StoreUnavailable.
        """
        last, current = self.begin_or_last(purpose), self._ring.current(purpose.value)
        wanted = key_thumbprint(self._ring.jwk(key_id))
        if entry_thumbprint(last) == wanted:  # it broke off after the entry was put, or all of it is done
            if current != key_id:
                self._ring.point(purpose.value, now=key_id, before=current)
            return last
        self._require_current(purpose, last, current)
        if any(entry_thumbprint(entry) == wanted for entry in self._line(purpose)):
            raise BadRequest("this key signed for the purpose before", hint="A key is used once: make a new one.")
        entry = self._put(purpose, last.number + 1, key_id, last, current)
        self._ring.point(purpose.value, now=key_id, before=current)
        return entry

    def begin_or_last(self, purpose: KeyPurpose) -> KeyEntry:
        """Return the last entry, the first one made now where there was none."""
        line = self._line(purpose)
        return line[-1] if line else self.begin(purpose)

    def _line(self, purpose: KeyPurpose) -> tuple[KeyEntry, ...]:
        history = read_history(self._objects)
        if history.findings:
            raise Conflict("the keys' history does not hold", hint=f"Look at {history.findings[0].key} first.")
        return history.of(purpose.value)

    def _require_current(self, purpose: KeyPurpose, last: KeyEntry, current: str) -> None:
        if key_thumbprint(self._ring.jwk(current)) != entry_thumbprint(last):
            raise Conflict(
                "the key of now is not the last of its history",
                hint=f"It was changed past this command, or this broke off: countersign keys rotate {purpose.value} "
                f"--to {last.jwk['kid']}",
            )

    def _put(self, purpose: KeyPurpose, number: int, key_id: str, before: KeyEntry | None, before_id: str) -> KeyEntry:
        now = self._clock.now()
        unsigned = KeyEntry(
            purpose=purpose,
            number=number,
            jwk=self._ring.jwk(key_id),
            previous_sha256=before.sha256() if before is not None else "",
            made_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            by=self._by,
        )
        payload = signed_payload(unsigned.sha256())
        entry = replace(
            unsigned,
            signed_by_itself=self._ring.sign(key_id, KEY_SIGNATURE_TYPE, payload),
            signed_by_previous=self._ring.sign(before_id, KEY_SIGNATURE_TYPE, payload) if before is not None else "",
        )
        self._objects.put_new(entry_key(purpose, number), entry.document(), content_type=_CONTENT_TYPE)
        return entry
