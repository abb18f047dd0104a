"""Exchanges what the caller has for a token of ours (RFC 8693), bound to the caller's own key, and keeps it good.

A run has one root: the first exchange binds it to the key of the identity file, and every later step of the run goes on
with that file. So a token is got, in this order: the file's, while it is good; the file's own, exchanged for a new one
by its key, which needs no issuer any more; the issuer's token of this same run, with the same key. What is got is
written before it is used.

What it does not do: find the issuer's token (``vouching``), keep the file (``identities``).
Source: RFC 8693 section 2.1; RFC 9449 section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from chalicelib.domain.identifiers import HOP_ID, TXN
from chalicelib.domain.secret import Secret
from countersign.api import Clock, HttpClient, Response, text_of
from countersign.failures import Exit, Failure
from countersign.identities import Held, IdentityFile, file_named, file_of, forget_old
from countersign.proofs import BoundToken, KeyAlone, OwnKey
from countersign.settings import Settings
from countersign.timestamps import moment_of
from countersign.vouching import Issued, is_token, issued_token, nobody

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
TICKET: Final = "urn:countersign:params:oauth:token-type:delegation-ticket"
_NEARLY_OVER_S: Final = 20.0  # one poll waits 5 s and may be retried: a token with less left is changed first
_LONGEST_S: Final = 24 * 3600  # no token of ours lives that long; a larger number is no answer


class Tokens:
    """The caller's identity at one service, as each call presents it."""

    def __init__(self, settings: Settings, http: HttpClient, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        self._held: Held | None = None
        self._file: IdentityFile | None = None
        self._issued: Issued | None = None  # got to find the file, and not used yet
        self._run: str | None = None  # of the issuer's token, once one was seen

    def presented(self) -> BoundToken:
        """Return what the next call presents: a good token with its key. Raises Failure: denied, unreachable, or usage
        where nobody vouches for the caller or its identity file cannot be used."""
        held = self.held()
        if held.token is None:  # held() has one, or raised
            raise Failure(Exit.INTERNAL, "the identity has no token")
        return BoundToken(held.token, held.key, self._clock)

    def held(self) -> Held:
        """Return the identity, with a token that is good for the next call. Raises Failure, as :meth:`presented`."""
        held = self._held
        if held is None or not held.has_token_for(_NEARLY_OVER_S, self._clock.now()):
            held = self._held = self._renewed()
        return held

    def thumbprint(self) -> str:
        """Return the thumbprint of the identity's key, which is made and kept where there is none; no token is needed.
        Raises Failure."""
        file = self._found(with_token=False)
        with file.locked(self._clock):
            held = self._read(file)
            if held is None:
                held = self._new(file)
                file.write(held)
        return held.key.thumbprint

    def unused(self) -> Held | None:
        """Return the person's or container's own identity (no run's), where it was made here; None without one."""
        if self._settings.in_ci or not self._settings.state:
            return None
        return file_of(self._settings.state, self._http.address.origin, "").read()

    def begin(self, issued: Issued) -> Held:
        """Begin a person's chain with their issuer's token, in the place of any earlier one. Raises Failure."""
        settings, origin = self._settings, self._http.address.origin
        file = file_named(settings.identity) if settings.identity else file_of(settings.state, origin, "")
        with file.locked(self._clock):
            got = exchanged(self._http, self._clock, self._new(file), subject(issued))
            file.write(got)
        return got

    def _renewed(self) -> Held:
        file = self._found(with_token=True)
        with file.locked(self._clock):
            held = self._read(file)
            if held is not None and held.has_token_for(_NEARLY_OVER_S, self._clock.now()):
                return held  # another step of the job got it meanwhile
            got = self._continued(held or self._new(file))
            file.write(got)
            return got

    def _continued(self, held: Held) -> Held:
        """Return the identity with a new token: by its own, else by its issuer's."""
        refusal: Failure | None = None
        if held.token is not None:
            own = {"subject_token": held.token.expose(), "subject_token_type": ACCESS_TOKEN}
            try:
                return exchanged(self._http, self._clock, held, own)
            except Failure as failure:
                if failure.exit_code is not Exit.DENIED:
                    raise
                refusal = failure
        issued = self._issuers_token()
        if issued is None:
            raise self._over(refusal) if refusal else nobody(self._http.address, in_ci=self._settings.in_ci)
        try:
            return exchanged(self._http, self._clock, replace(held, run=issued.run), subject(issued))
        except Failure as failure:
            if failure.code == "token_replayed" and refusal is not None:
                raise refusal from failure  # the issuer's one token was used at the start: its replay explains nothing
            if failure.code == "run_bound":
                raise _run_bound(failure) from failure
            raise

    def _over(self, refusal: Failure) -> Failure:
        """Return ``refusal`` with what to do where no issuer's token can go on."""
        login = not self._settings.identity
        refusal.hint = (
            "Log in again: `countersign login`." if login else f"Ask the parent for a new ticket. {refusal.hint}"
        )
        return refusal

    def _issuers_token(self) -> Issued | None:
        """Return the issuer's token that was got to find the file, else a new one."""
        issued, self._issued = self._issued, None
        if issued is None:
            issued = issued_token(self._settings, self._http.address, self._clock)
        self._run = "" if issued is None else issued.run
        return issued

    def _found(self, *, with_token: bool) -> IdentityFile:
        """Return the caller's file. ``with_token``: a key alone will not do. Raises Failure."""
        if self._file is not None:
            return self._file
        settings, address = self._settings, self._http.address
        if settings.identity:
            self._file = file_named(settings.identity)
            return self._file
        if settings.ticket is not None and with_token:
            raise Failure(
                Exit.USAGE,
                "there is a ticket, and it was not redeemed",
                hint="`countersign agent -- COMMAND` redeems it and runs COMMAND, and what it calls, as that hop.",
            )
        self._issued = self._issuers_token()
        if self._issued is None and (settings.in_ci or not settings.state):
            # On a runner of one's own, somebody may have logged in: a job is never that person.
            raise nobody(address, in_ci=settings.in_ci) if with_token else _unnamed()
        self._file = file_of(settings.state, address.origin, "" if self._issued is None else self._issued.run)
        return self._file

    def _read(self, file: IdentityFile) -> Held | None:
        """Return what the file holds, if it is for this service and this run. Raises Failure."""
        held = file.read()
        if held is None:
            return None
        if held.api != self._http.address.origin:
            raise Failure(
                Exit.USAGE,
                f"the identity in {file.path} is for another service, {held.api}",
                hint="Its token and key are shown to no other. Name another file in COUNTERSIGN_IDENTITY.",
            )
        if held.run and self._run is None:
            self._issued = self._issuers_token()
        if held.run and self._run and held.run != self._run:
            raise Failure(
                Exit.USAGE,
                f"the identity in {file.path} is another run's",
                hint="Name a file of this job alone in COUNTERSIGN_IDENTITY, or none.",
            )
        return held

    def _new(self, file: IdentityFile) -> Held:
        if not self._settings.identity:
            forget_old(str(file.path.parent), self._clock)
        return Held(api=self._http.address.origin, run="", key=OwnKey.new())


def subject(issued: Issued) -> Mapping[str, str]:
    """Return the form's fields for an issuer's token. Pure."""
    return {"subject_token": issued.token.expose(), "subject_token_type": issued.kind}


def redeemed(http: HttpClient, clock: Clock, key: OwnKey, ticket: Secret, actor: Issued | None) -> Held:
    """Return the identity that ``ticket`` lets ``key`` be; ``actor`` is the redeemer's own token, where the ticket
    names an issuer. The ticket is used up. Raises Failure."""
    form = {"subject_token": ticket.expose(), "subject_token_type": TICKET}
    if actor is not None:
        form |= {"actor_token": actor.token.expose(), "actor_token_type": actor.kind}
    return exchanged(http, clock, Held(api=http.address.origin, run="", key=key), form)


def exchanged(http: HttpClient, clock: Clock, held: Held, form: Mapping[str, str]) -> Held:
    """Return ``held`` with the token that the service gives for ``form`` and a proof of its key. Raises Failure."""
    told = {"grant_type": EXCHANGE, **form, "audience": http.address.origin}
    answer = http.call(
        "POST",
        http.address.url("/v1/token"),
        presented=KeyAlone(held.key, clock),
        body=urlencode(told).encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        repeatable=False,  # an issuer's token and a ticket are accepted once
    )
    return _taken(answer, held, clock)


def _taken(answer: Response, held: Held, clock: Clock) -> Held:
    body = answer.body
    token, lifetime_s = text_of(body, "access_token"), body.get("expires_in")
    txn, hop, hop_ends_at = text_of(body, "txn"), text_of(body, "hop"), moment_of(body.get("hop_expires_at"))
    sense = (
        is_token(token)
        and isinstance(lifetime_s, int)
        and not isinstance(lifetime_s, bool)
        and 0 < lifetime_s <= _LONGEST_S
        and TXN.match(txn)
        and HOP_ID.match(hop)
        and hop_ends_at is not None
    )
    if not sense or not isinstance(lifetime_s, int):
        raise Failure(Exit.UNREACHABLE, "the service's answer to the token exchange makes no sense")
    if text_of(body, "token_type").lower() != "dpop":
        raise Failure(
            Exit.UNREACHABLE,
            "the service gave a token that is not bound to this caller's key",
            hint="Whoever stole it could use it, so it is not used. Is the service older than this command line?",
        )
    return replace(
        held,
        token=Secret(token),
        token_ends_at=clock.now() + timedelta(seconds=lifetime_s),
        txn=txn,
        hop=hop,
        hop_ends_at=hop_ends_at,
    )


def _unnamed() -> Failure:
    return Failure(
        Exit.USAGE,
        "nobody said where the key is to be kept",
        hint="Name a file of this container's own in COUNTERSIGN_IDENTITY, for this and every later command in it.",
    )


def _run_bound(failure: Failure) -> Failure:
    return Failure(
        Exit.DENIED,
        "this run's chain began with another key, which this process does not have",
        hint="An earlier step holds it: keep HOME (or XDG_STATE_HOME) the same for the steps of a job; for another "
        "container, `countersign delegate` to it. If no step of yours began it, somebody took the job's token: "
        "`countersign revoke` the chain.",
        code=failure.code,
        request_id=failure.request_id,
    )
