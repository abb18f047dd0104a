"""What goes over the wire, each body and each answer once: its names, types and bounds.

Rules: a body takes no field that nobody reads; an answer leaves only as one of these; a field that is not there is
left out, never null. Bounds are those that the services hold to: they check again, for callers that are no HTTP.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.json_schema import SkipJsonSchema

from chalicelib.domain.legal_hold import MAX_REASON as MAX_HOLD_REASON
from chalicelib.domain.scope import MAX_DEPTH
from chalicelib.services.delegate import (
    MAX_CLAIMS,
    MAX_HOP_S,
    MAX_SCOPE,
    MAX_TICKET_S,
    MIN_HOP_S,
    MIN_TICKET_S,
    TICKET_S,
)
from chalicelib.services.page_answer import MAX_PART
from chalicelib.services.request import DEFAULT_DURATION_S, MAX_DURATION_S, MAX_REASON, MIN_DURATION_S
from chalicelib.services.revoke import MAX_ID, MAX_WHY
from chalicelib.services.sign_off import MAX_NOTE
from chalicelib.services.signoff_form import MAX_NAME, MAX_NAMED
from chalicelib.services.vouch_copy import MAX_BYTES, MAX_FILES

_ULID: Final = "[0-7][0-9a-hjkmnp-tv-z]{25}"
SESSION_ID: Final = f"^ses_{_ULID}$"
TXN: Final = f"^{_ULID}$"
ASK: Final = f"^ask_{_ULID}$"
HOLD: Final = f"^hld_{_ULID}$"
_SHA256: Final = "^[0-9a-f]{64}$"
THUMBPRINT: Final = "^[A-Za-z0-9_-]{43}$"  # RFC 7638 with SHA-256: 32 bytes in base64url
SUBJECT: Final = f"^(ses_)?{_ULID}$"

Moment: TypeAlias = Annotated[
    str, Field(json_schema_extra={"format": "date-time"}, description="RFC 3339, UTC, milliseconds")
]
Maybe: TypeAlias = str | SkipJsonSchema[None]  # in an answer alone, which leaves it out; a body takes no null


class Body(BaseModel):
    """What comes in."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """What goes out."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# -- errors ------------------------------------------------------------------------------------------------------------


class Refusal(Answer):
    """Every endpoint's error but the token's. ``code`` never changes; docs/errors.md lists them."""

    code: str
    message: str
    hint: str
    request_id: str


class OAuthRefusal(Answer):
    """RFC 6749 section 5.2, with our code."""

    error: str
    error_description: str
    code: str


# -- tokens and tickets ------------------------------------------------------------------------------------------------


class TokenForm(Body):
    """The parameters of RFC 8693. ``sign`` checks their values."""

    grant_type: str = Field(description="urn:ietf:params:oauth:grant-type:token-exchange")
    subject_token: str = Field(description="the issuer's token, a delegation ticket, or an own access token")
    subject_token_type: str
    actor_token: str = Field(default_factory=str, description="with a ticket that names an issuer: the redeemer's own")
    actor_token_type: str = Field(default_factory=str)
    requested_token_type: str = Field(default_factory=str)
    audience: str = Field(default_factory=str, description="this service's own address, or left out")
    resource: str = Field(default_factory=str, description="this service's own address, or left out")
    client_id: str = Field(default_factory=str, description="not read: the subject token says who asks")
    scope: str = Field(default_factory=str, description="less than the hop's: TARGET[/PRINCIPAL][#ACTION] ...")


class TokenAnswer(Answer):
    access_token: str
    issued_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"]
    token_type: Literal["DPoP", "Bearer"]
    expires_in: int = Field(ge=0)
    scope: str
    txn: str = Field(pattern=TXN)
    hop: str
    hop_expires_at: Moment


class RedeemerByKey(Body):
    """Whoever proves the key with this RFC 7638 thumbprint; its hop is vouched."""

    key: str = Field(pattern=THUMBPRINT)


class RedeemerByIssuer(Body):
    """Whoever that issuer says has these claims; its hop is attested."""

    issuer: str = Field(min_length=1, max_length=512)
    claims: dict[str, str] = Field(min_length=1, max_length=MAX_CLAIMS)


class DelegationBody(Body):
    redeemer: RedeemerByKey | RedeemerByIssuer
    name: str = Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$", description="what the parent calls the child, for people")
    scope: str = Field(
        default_factory=str, min_length=1, max_length=MAX_SCOPE, description="else all that its parent has"
    )
    duration_s: int = Field(
        default_factory=int, ge=MIN_HOP_S, le=MAX_HOP_S, description="of the child's hop, else its parent's end"
    )
    max_depth: int = Field(default_factory=int, ge=0, le=MAX_DEPTH, description="else its parent's")
    ticket_ttl_s: int = Field(
        default_factory=int, ge=MIN_TICKET_S, le=MAX_TICKET_S, description=f"{TICKET_S} where left out"
    )


class TicketAnswer(Answer):
    ticket: str = Field(description="shown once, kept as its hash")
    ticket_id: str
    txn: str = Field(pattern=TXN)
    parent: str
    name: str
    scope: str
    depth: int
    max_depth: int
    expires_at: Moment
    hop_expires_at: Moment


# -- sessions ----------------------------------------------------------------------------------------------------------


class SessionBody(Body):
    """Values are checked by the service, which says more of what is wrong; here are their names and types."""

    target: str = Field(json_schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"})
    reason: str = Field(
        description="for the approver, in one line", json_schema_extra={"minLength": 1, "maxLength": MAX_REASON}
    )
    principal: str = Field(default_factory=str, description="the login on the target, else its default")
    duration_s: int = Field(
        default=DEFAULT_DURATION_S, json_schema_extra={"minimum": MIN_DURATION_S, "maximum": MAX_DURATION_S}
    )
    ssh_public_key: str = Field(default_factory=str, min_length=1, description="for ssh targets: the key to certify")


class PostgresConnect(Answer):
    protocol: Literal["postgres"]
    host: str
    port: int
    ca_pem: str = Field(description="verifies the broker")
    user: str
    database: str
    env: dict[str, str]
    command: str = Field(description="for people; never run what an API sends")
    secret: Maybe = None


class SshConnect(Answer):
    protocol: Literal["ssh"]
    host: str
    port: int
    known_hosts: str = Field(description="verifies the broker: lines of a known_hosts file")
    user: str
    env: dict[str, str]
    command: str = Field(description="for people; never run what an API sends")
    secret: Maybe = None
    certificate: Maybe = Field(default=None, description="one OpenSSH line on the key that was given")


class GrantedAnswer(Answer):
    session_id: str = Field(pattern=SESSION_ID)
    status: Literal["granted"]
    txn: str = Field(pattern=TXN)
    expires_at: Moment
    connect: PostgresConnect | SshConnect


class Need(Answer):
    rule: str
    group: str
    count: int
    webauthn: bool = Field(description="each must answer with a passkey, on the approval page")
    missing: int
    hint: str


class Approval(Answer):
    id: str
    needs: list[Need]
    trigger_known: bool
    expires_at: Moment


class AskCard(Answer):
    blocks: list[dict[str, Any]] = Field(description="Slack's Block Kit, as the card in the channel has it")
    card_sha256: str = Field(pattern=_SHA256, description="over the blocks as canonical JSON (RFC 8785)")
    approve_challenge: str = Field(pattern=THUMBPRINT, description="what a passkey signs for yes: 32 bytes, base64url")
    deny_challenge: str = Field(pattern=THUMBPRINT)


class AskShown(Answer):
    id: str = Field(pattern=ASK)
    status: str = Field(pattern="^(open|approved|refused|expired|withdrawn)$")
    expires_at: Moment
    card: AskCard | SkipJsonSchema[None] = Field(default=None, description="while it is open")


_PART: Final = f"^[A-Za-z0-9_-]{{1,{MAX_PART}}}$"


class PasskeyAnswerBody(Body):
    """What the approval page sends; bytes are base64url without padding."""

    approved: bool
    card_sha256: str = Field(pattern=_SHA256, description="of the card that was shown")
    passkey_id: str = Field(pattern=_PART, description="the credential's id")
    client_data: str = Field(pattern=_PART, description="clientDataJSON")
    authenticator_data: str = Field(pattern=_PART)
    signature: str = Field(pattern=_PART)


class Told(Answer):
    text: str = Field(description="what to tell the person who answered")


class PendingAnswer(Answer):
    session_id: str = Field(pattern=SESSION_ID)
    status: Literal["pending"]
    txn: str = Field(pattern=TXN)
    approval: Approval
    poll: str


class ClosedAnswer(Answer):
    session_id: str = Field(pattern=SESSION_ID)
    status: Literal["closed"]
    txn: str = Field(pattern=TXN)


class CertificateBody(Body):
    ssh_public_key: str = Field(min_length=1, max_length=4096, description="one line of an OpenSSH public key file")


class CertificateAnswer(Answer):
    certificate: str
    expires_at: Moment


class ListedTarget(Answer):
    name: str
    protocol: str
    environment: str
    description: str


class TargetsAnswer(Answer):
    targets: list[ListedTarget]


# -- chains and revocation ---------------------------------------------------------------------------------------------


class RevocationBody(Body):
    kind: Literal["hop", "session", "txn", "grant", "identity", "issuer", "target", "token"]
    id: str = Field(min_length=1, max_length=MAX_ID)
    why: str = Field(
        description="for the record, in one line", json_schema_extra={"minLength": 1, "maxLength": MAX_WHY}
    )


class RevocationAnswer(Answer):
    key: str
    number: int = Field(ge=1, description="its place in the feed of revocations")
    at: Moment


class Actor(Answer):
    iss: str
    sub: str
    name: str


class ChainHop(Answer):
    """One hop. ``hashed`` is exactly what ``sha256`` and ``signature`` cover, so that anybody can verify it."""

    id: str
    depth: int
    kind: str
    parent: str
    actor: Actor
    assurance: str
    scope: list[str]
    max_depth: int
    teams: list[str]
    key_thumbprint: str
    ticket: str
    target: str
    principal: str
    serial: str
    issued_at: Moment
    expires_at: Moment
    revoked: bool
    sha256: str
    signature: str
    hashed: dict[str, Any]


class ChainAnswer(Answer):
    txn: str = Field(pattern=TXN)
    originator: Actor
    hops: list[ChainHop]


class IssuerTokenAnswer(Answer):
    """What a chain began with. ``proof`` is JSON text, byte for byte as it was sealed: ``token``, ``jwks``,
    ``jwks_uri``, ``fetched_at``; its SHA-256 is in the object that ``kept_sha256`` names."""

    txn: str
    hop: str
    issuer: str
    expires_at: Moment
    kept_sha256: str
    proof: str


class ReviewAnswer(RootModel[dict[str, Any]]):
    """The review, as ``countersign review --json`` prints it."""


# -- sign-offs ---------------------------------------------------------------------------------------------------------

IdentityKey: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_ID, description="ISSUER#SUBJECT")]


class SignoffBody(Body):
    """``keep`` and ``revoke`` decide of identities by name; every other one is kept with ``keep_others``, and without
    it the request is refused."""

    since: Moment
    until: Moment
    target: str = Field(default_factory=str, max_length=MAX_NAME)
    pipeline: str = Field(default_factory=str, max_length=MAX_ID)
    population_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="as the review of the same period showed it")
    keep: list[IdentityKey] = Field(default_factory=list, max_length=MAX_NAMED)
    revoke: list[IdentityKey] = Field(default_factory=list, max_length=MAX_NAMED)
    keep_others: bool = Field(default_factory=bool)
    note: str = Field(default_factory=str, max_length=MAX_NOTE)


class SignoffAnswer(Answer):
    id: str = Field(pattern=f"^sgn_{_ULID}$")
    key: str = Field(description="where it is kept, in the bucket")
    reviewer: str
    signed_at: Moment
    population_sha256: str
    sessions: int
    unknown_triggers: int = Field(description="sessions of which nobody knows who is behind the run")
    kept: int
    revoked: list[str] = Field(description="identities that are to be revoked: POST /v1/revocations does it")


# -- legal holds -------------------------------------------------------------------------------------------------------

HoldIdText: TypeAlias = Annotated[str, Field(pattern=HOLD)]


class HoldBody(Body):
    """``since`` is the first day (UTC) of sessions that a hold on a target is on, and nothing for another subject."""

    subject: str = Field(min_length=1, max_length=MAX_NAME, description="a session's id, a txn, or a target's name")
    reason: str = Field(min_length=1, max_length=MAX_HOLD_REASON, description="for the record, in one line")
    since: str = Field(default_factory=str, pattern=r"^(\d{4}-\d{2}-\d{2})?$")


class LiftBody(Body):
    reason: str = Field(min_length=1, max_length=MAX_HOLD_REASON, description="for the record, in one line")


class HoldAnswer(Answer):
    """A hold. ``lifted_at``, ``lifted_by`` and ``lift_reason`` are there where it was lifted."""

    id: HoldIdText
    kind: str = Field(description="session, chain or target")
    subject: str
    since: str = Field(description="the first day (UTC) of sessions that it is on")
    reason: str
    by: str = Field(description="the identity that put it")
    at: Moment
    lifted_at: Moment | None = None
    lifted_by: str | None = None
    lift_reason: str | None = None


class LiftAnswer(Answer):
    id: HoldIdText
    reason: str
    by: str
    at: Moment


class HoldsAnswer(Answer):
    holds: list[HoldAnswer] = Field(description="the oldest first")


# -- replays -----------------------------------------------------------------------------------------------------------


class ReplayBody(Body):
    session_id: str = Field(pattern=SESSION_ID)
    connection_id: str = Field(default_factory=str, pattern=f"^con_{_ULID}$", description="of one connection alone")
    form: Literal["terminal", "page", "json"]
    begin: str = Field(
        default_factory=str,
        pattern="^([0-9]{1,9} s|op_[0-9a-z]{1,32})$",
        description="seconds into it, or an operation; else the whole",
    )


class ReplayAnswer(Answer):
    session_id: str = Field(pattern=SESSION_ID)
    told_at: Moment


# -- copies ------------------------------------------------------------------------------------------------------------


class CopyBody(Body):
    """Of which session or chain it is, and the hash of its list of files, which stands for every byte."""

    subject: str = Field(pattern=SUBJECT)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    files: int = Field(ge=1, le=MAX_FILES)
    bytes: int = Field(ge=1, le=MAX_BYTES)


class Statement(Answer):
    """Its canonical JSON is what the copy keeps, and the bucket."""

    v: int
    id: str = Field(pattern=f"^cpy_{_ULID}$")
    subject: str = Field(pattern=SUBJECT)
    sha256: str
    files: int
    bytes: int
    copied_by: str = Field(description="issuer#subject of the identity that asked")
    hop: str
    txn: str = Field(description="the chain of whoever asked")
    stated_at: Moment
    signature: str = Field(description="compact JWS, type countersign-copy+jws, by the copy key")


class CopyAnswer(Answer):
    key: str = Field(description="where the statement is kept, in the bucket")
    statement: Statement


# -- what anybody may read ---------------------------------------------------------------------------------------------


class KeySet(Answer):
    """RFC 7517."""

    keys: list[dict[str, str]]


class KeysAnswer(RootModel[dict[str, KeySet]]):
    """Purpose to its keys."""


class Login(Answer):
    name: str
    issuer: str
    client_id: str
    scope: str


class LoginAnswer(Answer):
    issuers: list[Login]


class Health(Answer):
    status: Literal["ok"]


class Document(RootModel[dict[str, Any]]):
    """An OpenAPI 3.1 document."""


class SlackForm(BaseModel):
    """What Slack's interactivity sends."""

    payload: str
