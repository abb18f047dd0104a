"""Everything that may be refused, by who must act, each with a code that never changes.

``public`` is the sentence a client may see: safe, actionable, no inner host and no secret. ``detail`` is for our log
only. Each edge (HTTP, PostgreSQL, Slack, command line) maps the *kind* (the class) to its own wording once; the codes
are the same everywhere and are listed in ``docs/errors.md``. An exception that is not an :class:`AccessError` is a bug
of ours: the edge answers ``internal`` and fails closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class AccessError(Exception):
    """A refusal. ``code`` is stable and unique; subclasses name the kind and carry their default code and hint."""

    code: ClassVar[str] = "internal"
    hint: ClassVar[str] = "Try again; if it persists give the request id to the operators."

    def __init__(self, public: str, *, hint: str | None = None, **detail: object) -> None:
        """``public``: what the client may read. ``hint``: what to do next, else the class's. ``detail``: log only."""
        super().__init__(public)
        self.public = public
        self.next_step = hint if hint is not None else self.hint
        self.detail = detail


class BadRequest(AccessError):
    """The request itself is wrong: the caller must change it."""

    code = "bad_request"
    hint = "Correct the request; the message names the field."


class UnsupportedMediaType(BadRequest):
    code = "unsupported_media_type"
    hint = "Send the content type that the endpoint documents."


class BodyTooLarge(BadRequest):
    code = "body_too_large"
    hint = "Send a smaller body."


class UnsupportedGrantType(BadRequest):
    code = "unsupported_grant_type"
    hint = "Exchange the issuer's token: grant_type=urn:ietf:params:oauth:grant-type:token-exchange."


class InvalidTarget(BadRequest):
    """The ``audience`` or ``resource`` of an exchange is not one that this service issues tokens for (RFC 8707)."""

    code = "invalid_target"
    hint = "Leave audience and resource out, or give this service's own address."


class Unauthenticated(AccessError):
    """Who is asking could not be established."""

    code = "unauthenticated"
    hint = "Present a valid token."


class TokenInvalid(Unauthenticated):
    code = "token_invalid"
    hint = "Fetch a new token from your issuer, with this service's address as the audience."


class TokenExpired(Unauthenticated):
    code = "token_expired"
    hint = "Fetch a new token; tokens live minutes."


class TokenReplayed(Unauthenticated):
    code = "token_replayed"
    hint = "Each issuer token is accepted once: fetch a new one."


class KeyProofInvalid(Unauthenticated):
    """A DPoP proof (RFC 9449) is missing where a key is bound, or does not prove it."""

    code = "invalid_dpop_proof"
    hint = "Prove the key that the run or token is bound to; `countersign` does it with the key that it made first."


class RunBound(Unauthenticated):
    """The run has its root already, and who asks again did not prove that root's key."""

    code = "run_bound"
    hint = "A run has one root: use the token and key that it began with, or delegate to whoever needs more."


class TicketInvalid(Unauthenticated):
    """Unknown, expired, used up, or somebody else's: an outsider cannot tell these apart."""

    code = "ticket_invalid"
    hint = "Ask the parent for a new ticket that names your key or your issuer's claims."


class UnknownIssuer(Unauthenticated):
    code = "unknown_issuer"
    hint = "Ask the operators to declare the issuer in issuers.yaml."


class ProofInvalid(Unauthenticated):
    """What was presented to the broker or to a function does not prove what it must."""

    code = "proof_invalid"
    hint = "Ask for a new session and use its secret."


class Denied(AccessError):
    """Known, and not allowed."""

    code = "denied"
    hint = "Ask the owners of the target for access."


class PolicyDenied(Denied):
    code = "policy_denied"


class ApprovalDenied(Denied):
    code = "approval_denied"
    hint = "An approver refused; talk to them before asking again."


class ApprovalExpired(Denied):
    code = "approval_expired"
    hint = "Nobody answered in time; ask again when an approver is there."


class ApprovalWithdrawn(Denied):
    code = "approval_withdrawn"
    hint = "The request was withdrawn; ask again."


class ApproverNotEligible(Denied):
    code = "approver_not_eligible"
    hint = "Somebody else in the approving group must answer."


class PasskeyRequired(Denied):
    """A yes by a click, where a rule wants the assertion of a passkey."""

    code = "passkey_required"
    hint = "Open the approval page from the card, and approve with your passkey."


class ReviewerNotEligible(Denied):
    """Who would sign an access review off is no person in person, or has a part in what is reviewed."""

    code = "reviewer_not_eligible"
    hint = "Somebody who has no part in what is reviewed must sign it off."


class HeldInTransaction(Denied):
    code = "held_in_transaction"
    hint = (
        "Statements that need approval are not held inside an open transaction: run this one on its own (autocommit)."
    )


class GrantExpired(Denied):
    code = "grant_expired"
    hint = "Ask for a new session."


class GrantRevoked(Denied):
    code = "grant_revoked"
    hint = "Ask who revoked it why, then for a new session."


class ProofSealed(Denied):
    """An issuer's token that has not expired is nobody's to read, not even an auditor's."""

    code = "proof_sealed"
    hint = "Ask again when the issuer's token has expired; it lives for minutes."


class OutOfScope(Denied):
    code = "invalid_scope"
    hint = "Ask for no more than your own authority."


class AlreadyInChain(Denied):
    """The child is an actor of the chain already: a loop shows nobody who acts."""

    code = "already_in_chain"
    hint = "Use the hop that you have."


class NotPermitted(Denied):
    """What is done to this service itself (revoke, review), by somebody whom no rule permits it."""

    code = "not_permitted"
    hint = "Ask the security team; a rule for the action must permit it."


class MaskWrittenBack(Denied):
    code = "mask_written_back"
    hint = "The text carries a masked value; write the real one or leave the column out."


class NotFound(AccessError):
    """Absent, or not yours to know of: an outsider cannot tell the two apart."""

    code = "not_found"
    hint = "Check the name; `countersign targets` lists what you may ask for."


class Conflict(AccessError):
    """Another writer was first."""

    code = "conflict"
    hint = "Read the current state and decide again."


class AlreadyExists(Conflict):
    code = "already_exists"


class AlreadyDecided(Conflict):
    code = "already_decided"
    hint = "This person has answered already; the first answer stands."


class AlreadyUsed(Conflict):
    code = "already_used"
    hint = "An approval is used once; ask again."


class IdempotencyConflict(Conflict):
    code = "idempotency_conflict"
    hint = "The key was used with a different request: choose a new Idempotency-Key."


class Limited(AccessError):
    """A bound was met; the same call may succeed later."""

    code = "limited"
    hint = "Wait and try again."


class TargetUnavailable(AccessError):
    code = "target_unavailable"
    hint = "The target did not accept the broker; ask its owners."


class StoreUnavailable(AccessError):
    """A table, key, secret or function could not be reached: refused, never guessed."""

    code = "store_unavailable"
    hint = "Try again in a minute."


class RowUnreadable(StoreUnavailable):
    """What stands in a row is nothing that we wrote. Trying again does not help: a review names it and goes on."""

    code = "row_unreadable"
    hint = "A row was damaged, or edited past the service: an auditor's `countersign verify --all` names it."


class RecordingUnavailable(AccessError):
    code = "recording_unavailable"
    hint = "Nothing runs unrecorded; try again when recording is back."


class ConfigurationInvalid(AccessError):
    code = "configuration_invalid"
    hint = "Run `countersign config check` on the bundle."


class ProtocolViolation(AccessError):
    """Bytes that break the protocol: the connection ends."""

    code = "protocol_violation"
    hint = "Use a client that speaks the protocol."


def refusal(error: AccessError) -> dict[str, str]:
    """Return what one function of ours tells another of a refusal: code, public text, next step. No detail."""
    return {"code": error.code, "public": error.public, "hint": error.next_step}


def refused(told: Mapping[str, object]) -> AccessError:
    """Return the error that :func:`refusal` told of; an unknown code is StoreUnavailable, never a success. Pure."""
    for cls in leaf_errors():
        if cls.code == told.get("code") and cls is not AccessError:
            return cls(str(told.get("public", "")), hint=str(told.get("hint", "")))
    return StoreUnavailable("a function answered in a way that is not known", code=told.get("code"))


def leaf_errors() -> tuple[type[AccessError], ...]:
    """Return every error class, for the mapping tables' tests. Order is definition order; pure."""
    found: list[type[AccessError]] = []
    todo: list[type[AccessError]] = [AccessError]
    while todo:
        cls = todo.pop(0)
        found.append(cls)
        todo.extend(cls.__subclasses__())
    return tuple(found)


_codes = [cls.code for cls in leaf_errors()]
if len(_codes) != len(set(_codes)):  # a shared code would make two refusals one to whoever scripts against them
    raise RuntimeError(f"error codes are not unique: {sorted(c for c in _codes if _codes.count(c) > 1)}")
