"""An answer given on the approval page: what the page sends, and what a passkey's assertion must be for it to count.

Rules: the passkey is the one that the active bundle has for the person, and nothing that is sent can name another key;
the page must be this deployment's own, to the letter of its origin; an authenticator's counter never stands still or
goes back, since a copy of the key is what makes it (synced passkeys keep none and say 0: of those a copy is the point).
The bundle's Activation is kept with the assertion, so that a reader who has nothing but public keys and the bundle's
bytes can tell whose passkey it was.

Source: W3C Web Authentication Level 3, section 7.2, steps 6 to 22.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from chalicelib.config.bundle import Bundle
from chalicelib.domain.ask import Answer
from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import BadRequest, ProofInvalid, StoreUnavailable
from chalicelib.domain.identifiers import AskId
from chalicelib.domain.passkey import Assertion, Passkey
from chalicelib.domain.store import Activations, Once

COUNTERS: Final = "passkey"
# A counter is compared with the last use: after a year without one, the passkey may as well be a new one.
_COUNTER_MEMORY: Final = timedelta(days=366)
MAX_PART: Final = 4096  # characters of one part of an assertion; the largest that verifies has 2,735
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_MAX_ID: Final = 64  # an ask's id has 30 characters
_SHOWN_ID: Final = 16  # characters of a passkey's id in ``via``: enough to tell a person's passkeys apart


@dataclass(frozen=True, kw_only=True, slots=True)
class PageAnswer:
    """What the page sends: which card it showed, and the assertion in base64url. ``host`` is our own page's."""

    ask_id: AskId
    approved: bool
    card_sha256: str
    passkey_id: str
    client_data: str
    authenticator_data: str
    signature: str
    host: str

    @property
    def via(self) -> str:
        return f"webauthn:{self.host}/{self.passkey_id[:_SHOWN_ID]}"


def read_page_answer(given: Json, host: str) -> PageAnswer:
    """Return the answer in ``given``. Raises BadRequest on anything that no page of ours sends. Pure."""
    match given:
        case {
            "ask_id": str(ask_id),
            "approved": bool(approved),
            "card_sha256": str(card_sha256),
            "passkey_id": str(passkey_id),
            "client_data": str(client_data),
            "authenticator_data": str(authenticator_data),
            "signature": str(signature),
        } if _SHA256.match(card_sha256) and 0 < len(ask_id) <= _MAX_ID:
            parts = (passkey_id, client_data, authenticator_data, signature)
            if all(len(part) <= MAX_PART and _TEXT.match(part) for part in parts):
                return PageAnswer(
                    ask_id=AskId(ask_id),
                    approved=approved,
                    card_sha256=card_sha256,
                    passkey_id=passkey_id,
                    client_data=client_data,
                    authenticator_data=authenticator_data,
                    signature=signature,
                    host=host,
                )
    raise BadRequest("this is not an answer from the approval page")


def origin_of(url: str) -> str:
    """Return the origin of an address of ours, as a browser writes it: scheme, host, and a port that is not the
    scheme's own. Source: HTML Living Standard, "serialization of an origin". Pure."""
    parts = urlsplit(url)
    own = {"https": 443, "http": 80}.get(parts.scheme)
    port = f":{parts.port}" if parts.port not in (None, own) else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


class PasskeyCheck:
    """Adds the assertion to an answer, where it is one of that passkey over that answer, made on our page and now."""

    def __init__(self, *, activations: Activations, once: Once, origin: str, clock: Clock) -> None:
        """``origin`` is the approval page's: scheme, host and port."""
        self._activations = activations
        self._once = once
        self._origin = origin
        self._clock = clock

    def __call__(self, answer: Answer, given: PageAnswer, passkey: Passkey, bundle: Bundle) -> Answer:
        """Return ``answer`` with its assertion. Counts: an assertion whose authenticator keeps a counter is taken once.

        Raises ProofInvalid, StoreUnavailable.
        """
        # Imported where it is needed: it costs 60 ms of a cold start, and a click need not wait for it.
        from chalicelib.identity.webauthn import verify_assertion

        latest = self._activations.latest()
        if (latest.serial, latest.bundle_digest) != (bundle.serial, bundle.digest):
            raise StoreUnavailable("the configuration is changing just now", hint="Try again in ten seconds.")
        assertion = Assertion(
            passkey=passkey,
            client_data=given.client_data,
            authenticator_data=given.authenticator_data,
            signature=given.signature,
            activation=latest,
        )
        proved = replace(answer, assertion=assertion)
        shown = verify_assertion(proved)
        if shown is None or shown.origin != self._origin:
            raise ProofInvalid("the passkey was used on another page than ours", ask=answer.ask_id)
        self._count(passkey, shown.counter)
        return proved

    def _count(self, passkey: Passkey, counter: int) -> None:
        now = self._clock.now()
        if counter == 0:
            forward = self._once.held(COUNTERS, passkey.id, now=now) is None
        else:
            forward = self._once.advance(COUNTERS, passkey.id, counter, expires_at=now + _COUNTER_MEMORY, now=now)
        if not forward:
            raise ProofInvalid(
                "this passkey's counter went back: there may be a copy of it",
                hint="Tell the security team, and have the passkey removed from approvers.yaml.",
                passkey=passkey.id,
            )
