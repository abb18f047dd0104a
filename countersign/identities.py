"""The identity file: the key that this caller's hop is bound to, its token, and which hop that is.

A run has one root, and whoever holds its key is that root: so the key outlives a step of the job, in a file that only
this user reads, and never leaves it. Rules: mode 0600, ours, one name, no link, in a folder in which nobody else can
replace it, or it is refused; made at once whole (a new file renamed into place); one process at a time changes it
(``flock``); the file of one run is found by that run's own claims, since a self-hosted runner keeps its home from job
to job. Nothing of it is ever printed but the thumbprint, ``txn`` and ``hop``.

What it does not do: keep it from other processes of the same user, which the system does not separate either: run what
must not have it as another user, or in a container. Source: XDG Base Directory Specification 0.8 (the folder);
RFC 9449 section 11 (keys); flock(2).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from chalicelib.domain.canonical import digest, timestamp
from chalicelib.domain.identifiers import HOP_ID, TXN
from chalicelib.domain.secret import Secret
from countersign.api import Clock, text_of
from countersign.failures import Exit, Failure
from countersign.proofs import OwnKey
from countersign.timestamps import moment_of

_VERSION: Final = 1
_MOST_BYTES: Final = 64 * 1024  # a key and a token are 5 KB
_LOCK_S: Final = 90.0  # an exchange may be retried for 60 s by the step that holds the lock
_PAUSE_S: Final = 0.1
_KEPT: Final = timedelta(days=1)  # a run's chain lives eight hours: what is older is of no use, and holds a key
_NAME: Final = re.compile(r"[0-9a-f]{32}\.(json|json\.lock)\Z")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What an identity file holds. ``run`` names the CI run that its chain began with, empty for any other beginning.
    ``token``, ``txn`` and ``hop`` are empty, and the two ends None, while there is only a key."""

    api: str
    run: str
    key: OwnKey
    token: Secret | None = None
    token_ends_at: datetime | None = None
    txn: str = ""
    hop: str = ""
    hop_ends_at: datetime | None = None

    def has_token_for(self, seconds: float, now: datetime) -> bool:
        """Return whether its token is good for that much longer."""
        return (
            self.token is not None
            and self.token_ends_at is not None
            and now + timedelta(seconds=seconds) < self.token_ends_at
        )


class IdentityFile:
    """One identity file, there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self, clock: Clock) -> Iterator[None]:
        """Hold the file against other processes: two steps that run at once must not begin two chains. Makes the folder
        where it is missing. Raises Failure: not ours alone, or held by another process for too long."""
        _own_folder(self.path.parent)
        descriptor = _opened(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT)
        try:
            ends_s = clock.monotonic_s() + _LOCK_S
            while not _locked(descriptor):
                if clock.monotonic_s() > ends_s:
                    raise Failure(
                        Exit.UNREACHABLE,
                        f"another process has held {self.path} for {_LOCK_S:.0f} s",
                        hint="It is fetching a token. Nothing was started; try again when it is done.",
                    )
                clock.sleep(_PAUSE_S)
            yield
        finally:
            os.close(descriptor)  # which unlocks it

    def read(self) -> Held | None:
        """Return what it holds, None where there is no file. Raises Failure where it is not ours alone, or makes no
        sense."""
        try:
            descriptor = _opened(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        try:
            return _held(json.loads(data))
        except (ValueError, RecursionError) as error:
            raise Failure(
                Exit.USAGE, f"{self.path} is no identity file", hint="Remove it; the next command makes a new one."
            ) from error

    def write(self, held: Held) -> None:
        """Put ``held`` in its place, whole or not at all. Call it within :meth:`locked`. Raises Failure."""
        fresh = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(_as_json(held))
                os.replace(fresh, self.path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(fresh)
                raise
        except OSError as error:
            raise Failure(Exit.USAGE, f"{self.path} cannot be written: {error.strerror}", hint=_ELSEWHERE) from error


_ELSEWHERE: Final = "Name a path that can be written in COUNTERSIGN_IDENTITY, or a folder in XDG_STATE_HOME."


def file_named(path: str) -> IdentityFile:
    """Return the file that COUNTERSIGN_IDENTITY names. Raises Failure (usage)."""
    if not os.path.isabs(path) or "\0" in path:
        raise Failure(Exit.USAGE, "COUNTERSIGN_IDENTITY is not the whole path of a file")
    return IdentityFile(Path(path))


def file_of(state: str, origin: str, who: str) -> IdentityFile:
    """Return the file in the folder ``state`` for one service and one of its callers (:func:`run_of`, or empty for
    whoever logged in here). Raises Failure where there is no folder."""
    if not state:
        raise Failure(Exit.USAGE, "there is no folder to keep this run's key in (HOME is not set)", hint=_ELSEWHERE)
    return IdentityFile(Path(state, f"{digest([origin, who])[:32]}.json"))


def forget_old(state: str, clock: Clock) -> None:
    """Remove the keys of runs that ended long ago. Best effort: a file that stays harms nobody new."""
    ends = clock.now().timestamp() - _KEPT.total_seconds()
    with suppress(OSError), os.scandir(state) as entries:
        for entry in entries:
            with suppress(OSError):
                if _NAME.match(entry.name) and entry.stat(follow_symlinks=False).st_mtime < ends:
                    os.unlink(entry.path)


def _opened(path: Path, flags: int) -> int:
    """Return a descriptor of a plain file that is ours alone. Raises Failure, FileNotFoundError."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path} cannot be opened: {error.strerror}", hint=_ELSEWHERE) from error
    found = os.fstat(descriptor)
    wrong = (
        "is no plain file"
        if not stat.S_ISREG(found.st_mode)
        else "belongs to another user"
        if found.st_uid != os.geteuid()
        else "can be read or written by others"
        if found.st_mode & _OTHERS
        else "has a second name"
        if found.st_nlink > 1
        else ""
    )
    if wrong:
        os.close(descriptor)
        raise Failure(
            Exit.USAGE,
            f"{path} {wrong}: it is not used",
            hint="Whoever reads it can speak as this run. Remove it, and find out who made it so.",
        )
    return descriptor


def _own_folder(folder: Path) -> None:
    """Make the folder where it is missing. Raises Failure where another user could put a file of theirs in our file's
    place: where they may write in it, but for a folder like /tmp in which nobody renames what is another's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise Failure(Exit.USAGE, f"{folder} cannot be made: {error.strerror}", hint=_ELSEWHERE) from error
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in {os.geteuid(), 0} or others_write:
        raise Failure(
            Exit.USAGE,
            f"others may change what is in {folder}: this run's key is not kept there",
            hint=f"chmod 700 it. {_ELSEWHERE}",
        )


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _as_json(held: Held) -> str:
    ends = {"token_ends_at": held.token_ends_at, "hop_ends_at": held.hop_ends_at}
    told = {
        "v": _VERSION,
        "api": held.api,
        "run": held.run,
        "key": held.key.pem().expose(),
        "token": "" if held.token is None else held.token.expose(),
        "txn": held.txn,
        "hop": held.hop,
        **{name: "" if moment is None else timestamp(moment) for name, moment in ends.items()},
    }
    return json.dumps(told)


def _held(told: object) -> Held:
    """Return what ``told`` says. Raises ValueError."""
    if not isinstance(told, Mapping) or told.get("v") != _VERSION:
        raise ValueError("another version")
    token = text_of(told, "token")
    held = Held(
        api=text_of(told, "api"),
        run=text_of(told, "run"),
        key=OwnKey.from_pem(text_of(told, "key")),
        token=Secret(token) if token else None,
        token_ends_at=moment_of(told.get("token_ends_at")),
        txn=text_of(told, "txn"),
        hop=text_of(told, "hop"),
        hop_ends_at=moment_of(told.get("hop_ends_at")),
    )
    if held.token is not None and not (TXN.match(held.txn) and HOP_ID.match(held.hop) and held.token_ends_at):
        raise ValueError("a token without its hop")
    return held
