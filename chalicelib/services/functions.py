"""The functions with roles of their own, as Lambda calls them: JSON in, ``{"ok": ...}`` or ``{"refused": ...}`` out.

Rule: what comes in is checked here for its shape and verified by the service; a refusal keeps its code across the call;
anything else that goes wrong is a crash without a word, which the caller reads as StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote

from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.errors import AccessError, BadRequest, refusal
from chalicelib.domain.identifiers import AskId, ConnectionId, SessionId
from chalicelib.services.certify import Certify
from chalicelib.services.chains import ReviewChain
from chalicelib.services.decide import Decide, SlackRequest
from chalicelib.services.delegate import Delegate
from chalicelib.services.exchange import Exchange
from chalicelib.services.identify import Identify, Presented
from chalicelib.services.issue import Issued
from chalicelib.services.mint import Mint
from chalicelib.services.post_cards import AnswerPut, AskPut, Record, Unreadable
from chalicelib.services.sign_off import SignOff
from chalicelib.services.signoff_form import read_signoff, told_signoff

Handler: TypeAlias = Callable[[Mapping[str, Json]], Mapping[str, Json]]

REVIEWS_PATH = "/v1/reviews"
SIGNOFFS_PATH = "/v1/signoffs"
MAX_ID = 64  # our ids are 30 characters; a longer one is not ours


class FunctionFailed(Exception):
    """A bug of ours, without its text: Lambda hands an exception's message to whoever invoked the function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignWork:
    """What the ``sign`` function does: each verifies for itself who asks."""

    exchange: Exchange
    delegate: Delegate
    certify: Certify


def sign_handler(work: SignWork) -> Handler:
    """One of three, by the member that names it:

    ``{"form": {name: [values]}, "proof"}`` to the answer of the token endpoint; ``{"delegate": body, ...}`` to a
    ticket; ``{"certify": {"session_id", "public_key"}, ...}`` to ``{"certificate", "expires_at"}``. The last two come
    with ``Presented.told()``.
    """

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        match event:
            case {"form": form}:
                return _issued(work.exchange(_form(form), _optional(event, "proof")))
            case {"delegate": Mapping() as body}:
                return work.delegate(_presented(event), body).told()
            case {"certify": Mapping() as wanted}:
                done = work.certify(_presented(event), _text(wanted, "session_id"), _text(wanted, "public_key"))
                return {"certificate": done.certificate, "expires_at": timestamp(done.expires_at)}
            case _:
                raise BadRequest("form, delegate or certify is missing")

    return handle


def decide_handler(decide: Decide) -> Handler:
    """``{"body", "timestamp", "signature"}`` of Slack's request, as it came, to ``{"text"}``."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        request = SlackRequest(
            body=_text(event, "body"), timestamp=_text(event, "timestamp"), signature=_text(event, "signature")
        )
        return {"text": decide(request)}

    return handle


def mint_handler(mint: Mint) -> Handler:
    """``{"session_id", "connection_id", "public_key"?}`` to ``{"kind", "login", "secret", "certificate"}``."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        session_id, connection_id = _text(event, "session_id"), _text(event, "connection_id")
        if len(session_id) > MAX_ID or len(connection_id) > MAX_ID:
            raise BadRequest("an id is not one of ours")
        public_key = _text(event, "public_key") if event.get("public_key") else ""
        minted = mint(SessionId(session_id), ConnectionId(connection_id), public_key)
        return {
            "kind": minted.kind,
            "login": minted.login,
            "secret": minted.secret.expose(),
            "certificate": minted.certificate,
        }

    return handle


def review_handler(identify: Identify, review: ReviewChain) -> Handler:
    """``{"subject", ...}`` with ``Presented.told()`` to the review as JSON. The caller is verified again, since being
    invoked is no authority; the API has counted its proof, and this role may write nothing."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        presented, subject = _presented(event), _text(event, "subject")
        presented.require_for("GET", f"{REVIEWS_PATH}/{quote(subject, safe='')}")
        return review(identify(presented, count_once=False), subject)

    return handle


def sign_off_handler(identify: Identify, sign_off: SignOff) -> Handler:
    """``{"signoff": body, ...}`` with ``Presented.told()`` to what was signed. The caller is verified again."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        presented = _presented(event)
        presented.require_for("POST", SIGNOFFS_PATH)
        return told_signoff(sign_off(identify(presented, count_once=False), read_signoff(event.get("signoff"))))

    return handle


def answered(
    handler: Handler, event: Mapping[str, Json], failed: Callable[[], None] = lambda: None
) -> Mapping[str, Json]:
    """Return what the function answers. ``failed`` is called while an exception that is a bug is being handled, to log
    it; then FunctionFailed is raised, which says nothing of it."""
    try:
        return {"ok": handler(event)}
    except AccessError as error:
        return {"refused": refusal(error)}
    except Exception:  # noqa: BLE001 - its text may quote what was sent
        failed()
    raise FunctionFailed("a function of ours failed; its log says why")


def stream_records(event: Mapping[str, Json]) -> list[Record]:
    """Return what a DynamoDB stream event says: the Asks put, and the Asks of the Answers put.

    Only the keys are read: what an Ask is, is read from its table. A MODIFY or REMOVE on these tables is not a card's
    business. Source: DynamoDB Streams API, Record.
    """
    records = event.get("Records")
    listed = records if isinstance(records, list | tuple) else []
    return [found for record in listed if (found := _record(record)) is not None]


def _record(record: Json) -> Record | None:
    try:
        match record:
            case {"eventName": "INSERT", "eventSourceARN": str(arn), "dynamodb": {"Keys": Mapping() as keys}}:
                table = arn.split(":table/", 1)[1].split("/", 1)[0]
            case {"eventName": "MODIFY" | "REMOVE"}:
                return None
            case _:
                return Unreadable(what="a stream's record is not one that we know")
        if table.endswith("-asks"):
            return AskPut(ask_id=AskId(_key(keys, "id")))
        if table.endswith("-answers"):
            return AnswerPut(ask_id=AskId(_key(keys, "ask")))
    except (IndexError, KeyError, TypeError, BadRequest):
        return Unreadable(what="a stream's record has no key that we know")
    return Unreadable(what="a stream's record is of a table that has no cards")


def _key(keys: Mapping[str, Json], name: str) -> str:
    match keys[name]:
        case {"S": str(value)} if 0 < len(value) <= MAX_ID:
            return value
    raise BadRequest("a key is not text")


def _issued(done: Issued) -> Mapping[str, Json]:
    return {
        "access_token": done.access_token.expose(),
        "token_type": "DPoP" if done.bound else "Bearer",
        "expires_in": done.expires_in,
        "scope": " ".join(done.scope),
        "txn": done.txn,
        "hop": done.hop,
        "hop_expires_at": timestamp(done.hop_expires_at),
    }


def _presented(event: Mapping[str, Json]) -> Presented:
    return Presented(
        token=_text(event, "token"),
        scheme=_text(event, "scheme"),
        proof=_optional(event, "proof"),
        method=_text(event, "method"),
        path=_text(event, "path"),
    )


def _optional(event: Mapping[str, Json], name: str) -> str:
    return _text(event, name) if event.get(name) else ""


def _text(event: Mapping[str, Json], name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name} is missing")
    return value


def _form(value: Json) -> Mapping[str, Sequence[str]]:
    if not isinstance(value, Mapping):
        raise BadRequest("form is missing")
    found: dict[str, list[str]] = {}
    for name, values in value.items():
        if not isinstance(values, list | tuple) or not values or not all(isinstance(text, str) for text in values):
            raise BadRequest("form is not a mapping of names to values")
        found[name] = [str(text) for text in values]
    return found
