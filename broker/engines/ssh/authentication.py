"""Who is at the door: a user certificate of our authority on a key that was proved, or the session's secret.

Rules:
- paramiko proves that the client has the key, and nothing else: that the certificate is ours, names this login alone
  and is valid now is ``verify_certificate``'s, and that it is the proved key's is compared here.
- A stranger gets one answer, whatever the cause: the login of no session has a verifier that nothing matches, at the
  same cost; a certificate is checked without looking at any session.
- A plain key is refused without being counted: clients offer it before the certificate on it, and an agent offers many.
  Six wrong proofs, or 64 requests, end the transport; so do 256 messages of any kind (``transport``), and the
  listener's deadline.
- What blocks (the session's row, our public keys) runs in the driver's pool. The transport's thread waits for it: it
  has nothing else to do before authentication, and there are no more of them than strangers at the door.

Source: RFC 4252; OpenSSH PROTOCOL.certkeys; ``../shared/reference/measured.md`` (SSH).
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, ParamSpec, Protocol, TypeAlias, TypeVar

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL

from broker.engines.flow import Runs
from broker.engines.ssh import refusals
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, ProofInvalid, StoreUnavailable
from chalicelib.domain.verifier import Verifier, matches
from chalicelib.identity.ssh_certificates import verify_certificate

P = ParamSpec("P")
T = TypeVar("T")
Authorities: TypeAlias = "Callable[[], Mapping[str, Mapping[str, str]]]"

MAX_TRIES: Final = 6  # OpenSSH's MaxAuthTries: a person types three
MAX_REQUESTS: Final = 64  # with what is not counted: an agent with dozens of keys, and no loop
WAIT_S: Final = 10.0  # one row, or our public keys; past it the store hangs
METHODS: Final = "publickey,password"
_CERTIFICATE: Final = "-cert-v01@openssh.com"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Proved:
    """Who it is. ``bound``: by a certificate on a key of the client's own, and not by a secret that anybody may have
    copied."""

    login: str
    bound: bool


class Shows(Protocol):
    """Where a client that is authenticating can be shown a sentence."""

    def banner(self, text: str) -> None: ...


class Authentication(paramiko.ServerInterface):
    """One client's. Its methods are called in the transport's thread."""

    def __init__(
        self,
        *,
        verifier: Callable[[str], Verifier],
        authorities: Authorities,
        runs: Runs,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_proved: Callable[[Proved], None],
    ) -> None:
        """``authorities`` gives ``kid`` to public JWK of our user authority, and may block."""
        self._verifier = verifier
        self._authorities = authorities
        self._runs = runs
        self._clock = clock
        self._loop = loop
        self._on_proved = on_proved
        self._shows: Shows | None = None
        self._tries = 0
        self._requests = 0

    def shows_at(self, shows: Shows) -> None:
        self._shows = shows

    # What paramiko asks.

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 the same for everybody
        return METHODS

    def get_banner(self) -> tuple[None, None]:
        return None, None

    def check_auth_none(self, username: str) -> int:  # noqa: ARG002 no login is open to everybody
        """How clients ask which methods there are."""
        self._requests += 1
        return AUTH_FAILED

    def check_auth_password(self, username: str, password: str | bytes) -> int:
        self._requests += 1
        text = password if isinstance(password, str) else password.decode("utf-8", "replace")
        return self._counted(lambda: self._blocking(self._knows_secret, username, text))

    def check_auth_publickey(self, username: str, key: object) -> int:
        """Called twice for one key: when it is offered, and when it was signed with."""
        self._requests += 1
        blob = getattr(key, "public_blob", None)
        if not isinstance(key, paramiko.PKey) or blob is None or not blob.key_type.endswith(_CERTIFICATE):
            return AUTH_FAILED
        line = f"{blob.key_type} {base64.b64encode(blob.key_blob).decode()}"
        proved = f"{key.get_name()} {key.get_base64()}"
        return self._counted(lambda: self._blocking(self._is_ours, line, username, proved))

    # What the transport asks.

    def proved(self, login: str, method: str) -> None:
        self._on_proved(Proved(login=login, bound=method == "publickey"))

    def exhausted(self) -> bool:
        return self._tries >= MAX_TRIES or self._requests >= MAX_REQUESTS

    # Inside.

    def _counted(self, check: Callable[[], bool]) -> int:
        try:
            if check():
                return AUTH_SUCCESSFUL
        except AccessError as error:
            # Nothing that a stranger could learn from: the store is down for everybody.
            _log.warning("a proof could not be checked", extra={"code": error.code})
            if self._shows is not None:
                self._shows.banner(refusals.line(error))
        except Exception:  # noqa: BLE001 fails closed: whatever goes wrong proves nothing, and the log has it
            _log.exception("a proof could not be checked")
        self._tries += 1
        return AUTH_FAILED

    def _knows_secret(self, login: str, text: str) -> bool:
        return matches(self._verifier(login), text)

    def _is_ours(self, line: str, login: str, proved: str) -> bool:
        try:
            found = verify_certificate(line, self._authorities(), now=self._clock.now(), login=login)
        except ProofInvalid as error:
            _log.info("a certificate was refused", extra={"why": error.detail.get("why", error.public)})
            return False
        return found.public_key == proved

    def _blocking(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``fn`` returns, run in the pool. Raises what it raises, and StoreUnavailable."""

        async def run() -> T:
            waited: Awaitable[T] = self._runs.run(fn, *args, **kwargs)
            return await waited

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result(WAIT_S)
        except (TimeoutError, concurrent.futures.CancelledError) as error:  # too slow, or the broker is stopping
            future.cancel()
            raise StoreUnavailable("the proof could not be checked in time") from error
