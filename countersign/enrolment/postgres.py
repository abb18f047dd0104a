"""A login of a PostgreSQL target, tried and changed with the broker's own client: the same TLS, the same SCRAM.

What is sent to change a password is its SCRAM-SHA-256 verifier, computed here, so neither the wire nor the server's log
(``log_statement``) holds what logs in; 256 random bits are not guessed from it. A target that answers the proof with
its own error 28P01 refused the password; every other failure shows nothing and is raised.

Sources: PostgreSQL manual, ALTER ROLE (a verifier is taken as it is), "Password Authentication", pg_authid
(``rolpassword``), pg_roles; appendix A (28P01).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from broker.engines.channel import ReceiveBuffer
from broker.engines.postgres.upstream import Upstream, ask, dial
from broker.wire.postgres import messages
from broker.wire.postgres.framing import frame
from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import Target
from chalicelib.domain.verifier import Verifier

P = ParamSpec("P")
T = TypeVar("T")

_WRONG_PASSWORD: Final = "28P01"
_TERMINATE: Final = messages.TERMINATE.to_bytes()
_CLOSED_S: Final = 2.0  # a target that does not hang up is left: the process ends soon
_NAME: Final = "countersign targets enroll"  # in the target's own log, where operators look who changed it
_OTHERS: Final = (
    "SELECT rolname || CASE WHEN rolsuper THEN ' (superuser)' ELSE '' END FROM pg_catalog.pg_roles "
    "WHERE rolcanlogin AND rolname <> current_user AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) "
    "ORDER BY rolsuper DESC, rolname"
)


class PostgresLogin:
    """Implements ``rotation.TargetLogin``: ``account`` at ``target``. Each call is a connection of its own."""

    def __init__(self, target: Target, account: str) -> None:
        self._target = target
        self._account = account

    def takes(self, password: Secret) -> bool:
        async def nothing(_: Upstream) -> None: ...

        try:
            asyncio.run(self._connected(password, nothing))
        except TargetUnavailable as error:
            if error.detail.get("sqlstate") == _WRONG_PASSWORD:
                return False
            raise
        return True

    def change(self, present: Secret, verifier: Verifier) -> None:
        # Base64 and digits alone: nothing in it could end the literal.
        kept = f"SCRAM-SHA-256${verifier.iterations}:{verifier.salt}${verifier.stored_key}:{verifier.server_key}"

        async def alter(upstream: Upstream) -> None:
            try:
                await ask(upstream, f"ALTER ROLE CURRENT_USER PASSWORD '{kept}'")
            except TargetUnavailable as error:
                code = error.detail.get("sqlstate", "")
                raise TargetUnavailable("the target did not change the password", sqlstate=code) from error

        asyncio.run(self._connected(present, alter))

    def others(self, present: Secret) -> Sequence[str]:
        async def roles(upstream: Upstream) -> list[str]:
            return [row[0] or "" for row in await ask(upstream, _OTHERS)]

        return asyncio.run(self._connected(present, roles))

    async def _connected(self, password: Secret, then: Callable[[Upstream], Awaitable[T]]) -> T:
        upstream = await dial(
            self._target,
            login=self._account,
            secret=password,
            parameters={"application_name": _NAME, "client_encoding": "UTF8", "search_path": "pg_catalog"},
            buffer=ReceiveBuffer(),
            runs=_Threads(),
        )
        try:
            return await then(upstream)
        finally:
            upstream.channel.write(frame(_TERMINATE))
            upstream.channel.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(upstream.channel.wait_closed(), _CLOSED_S)


class _Threads:
    """Implements ``broker.engines.flow.Runs``: one login at a time needs no pool."""

    def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return asyncio.to_thread(fn, *args, **kwargs)
