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
from chalicelib.services.hold_form import read_hold, told_hold, told_holds, told_lift
from chalicelib.services.identify import Identify, Presented
from chalicelib.services.issue import Issued
from chalicelib.services.legal_holds import LegalHolds
from chalicelib.services.mint import Mint
from chalicelib.services.open_token import OpenedProof, OpenToken
from chalicelib.services.page_answer import read_page_answer
from chalicelib.services.post_cards import AnswerPut, AskPut, Record, Unreadable
from chalicelib.services.sign_off import SignOff
from chalicelib.services.signoff_form import read_signoff, told_signoff
from chalicelib.services.vouch_copy import VouchCopy, read_copy, told_copy

Handler: TypeAlias = Callable[[Mapping[str, Json]], Mapping[str, Json]]

REVIEWS_PATH = "/v1/reviews"
CHAINS_PATH = "/v1/chains"
SIGNOFFS_PATH = "/v1/signoffs"
HOLDS_PATH = "/v1/holds"
COPIES_PATH = "/v1/copies"
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
    """``{"body", "timestamp", "signature"}`` of Slack's request, as it came, or ``{"on_page": answer}`` of the approval
    page, to ``{"text"}``."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        if "on_page" in event:
            return {"text": decide.on_page(read_page_answer(event["on_page"], decide.host))}
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


def hold_handler(identify: Identify, holds: LegalHolds) -> Handler:
    """``{"hold": body}``, ``{"lift": {"id", "reason"}}`` or ``{"list": true}``, with ``Presented.told()``, to the hold,
    its lift, or all holds. The caller is verified again."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        presented = _presented(event)
        match event:
            case {"hold": Mapping() as body}:
                presented.require_for("POST", HOLDS_PATH)
                wanted = read_hold(body)
                caller = identify(presented, count_once=False)
                return told_hold(holds.place(caller, wanted.subject, wanted.reason, wanted.since))
            case {"lift": Mapping() as body}:
                hold_id = _text(body, "id")
                presented.require_for("POST", f"{HOLDS_PATH}/{quote(hold_id, safe='')}/lift")
                return told_lift(holds.lift(identify(presented, count_once=False), hold_id, _text(body, "reason")))
            case {"list": True}:
                presented.require_for("GET", HOLDS_PATH)
                return told_holds(holds.listed(identify(presented, count_once=False)))
            case _:
                raise BadRequest("hold, lift or list is missing")

    return handle


def open_token_handler(identify: Identify, open_token: OpenToken) -> Handler:
    """``{"txn", ...}`` with ``Presented.told()`` to the issuer's token that began a chain, and the keys that verify it.
    The caller is verified again."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        presented, txn = _presented(event), _text(event, "txn")
        presented.require_for("GET", f"{CHAINS_PATH}/{quote(txn, safe='')}/token")
        return _opened(open_token(identify(presented, count_once=False), txn))

    return handle


def _opened(opened: OpenedProof) -> Mapping[str, Json]:
    proof = opened.proof
    return {
        "txn": opened.hop.txn,
        "hop": opened.hop.id,
        "issuer": opened.kept.issuer,
        "expires_at": timestamp(opened.kept.expires_at),
        "kept_sha256": opened.hop.evidence.kept_sha256,
        "proof": proof.document().decode(),
    }


def vouch_copy_handler(identify: Identify, vouch: VouchCopy) -> Handler:
    """``{"copy": body, ...}`` with ``Presented.told()`` to the statement. The caller is verified again."""

    def handle(event: Mapping[str, Json]) -> Mapping[str, Json]:
        presented = _presented(event)
        presented.require_for("POST", COPIES_PATH)
        return told_copy(vouch(identify(presented, count_once=False), read_copy(event.get("copy"))))

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
