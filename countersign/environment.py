"""Builds the environment of what we start: an allow-list per protocol, every value's grammar checked.

The attack: whoever answers for the API puts ``LD_PRELOAD``, ``GIT_SSH_COMMAND`` or a newline into what becomes an
environment, a shell's input or a file. So a name outside the protocol's list refuses the whole session, and a value
that does not have its grammar does too. The connection's security is ours to set, never the service's: ``verify-full``
always, against the authority that ``connect`` carries, and what the job itself had set for the same client is removed.

What it does not do: run anything (``child``). Source: PostgreSQL 16 manual, sections 34.15 (environment variables)
and 34.19 (SSL support); POSIX.1-2017 section 8.1 (names).
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chalicelib.domain.identifiers import SESSION_ID
from countersign.failures import Exit, Failure
from countersign.sessions import Connect, Granted
from countersign.settings import CI_CREDENTIALS, CI_TOKEN_VARIABLES, OWN_IDENTITY_VARIABLES

HOST: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,45})\Z")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}\Z")
# No `=`, `/` or space: libpq takes a database name with one of those for a whole connection string. No `$`: readers of
# dotenv files put a variable's value there.
_DATABASE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}\Z")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{20,256}\Z")
_FILE: Final = re.compile(r"/[A-Za-z0-9/._@+-]{1,1023}\Z")
_PEM: Final = re.compile(
    r"(-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=]{1,76}\r?\n)+-----END CERTIFICATE-----\r?\n?\s*)+\Z"
)
_MAX_PEM: Final = 64 * 1024  # a chain of ten large certificates; more is not an authority's file

# What the service may say in `connect.env`, and what a value must look like; the rest is ours.
_FROM_SERVICE: Final[Mapping[str, Mapping[str, re.Pattern[str]]]] = {
    "postgres": {
        "PGHOST": HOST,
        "PGPORT": _PORT,
        "PGUSER": SESSION_ID,
        "PGDATABASE": _DATABASE,
        "PGPASSWORD": _SECRET,
        "PGSSLMODE": re.compile(r"verify-full\Z"),
        "PGSSLROOTCERT": re.compile(r"[A-Za-z0-9/._-]{0,255}\Z"),  # theirs is never used: the file is ours
    },
}
# Of the job's own variables for the client, those that say nothing of where it connects, as whom, and whom it trusts.
# An allow-list again: libpq's next version may read one more that would win over ours (as PGHOSTADDR does over PGHOST).
_KEPT: Final[Mapping[str, tuple[tuple[str, ...], frozenset[str]]]] = {
    "postgres": (
        ("PG",),
        frozenset(
            ("PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGDATESTYLE", "PGOPTIONS", "PGTZ", "PG_COLOR")
        ),
    ),
    # Another program in ssh's place, an agent, a way to be asked for a password.
    "ssh": (("SSH_", "GIT_SSH", "RSYNC_RSH", "SVN_SSH"), frozenset()),
}


# What an agent gets of the environment around it: where it is and how it writes, and nothing that proves who it is.
_AGENT_KEEPS: Final = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TZ", "TMPDIR", "PWD", "SSL_CERT_FILE")
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")


def client_variables(connect: Connect, ca_file: Path) -> dict[str, str]:
    """Return what the protocol's clients need, where variables are enough, and nothing else. Raises Failure where the
    service's words do not have the grammar. Pure: ``ca_file`` is written by the caller, with
    :func:`checked_authority`."""
    allowed = _FROM_SERVICE.get(connect.protocol)
    if allowed is None:
        raise Failure(
            Exit.UNREACHABLE,
            f"no variables set up a client for the target's protocol ({connect.protocol})",
            hint="`pip install -U countersign`.",
        )
    for name, value in connect.env:
        grammar = allowed.get(name)
        if grammar is None:
            raise untrusted(f"the service sent the environment variable {name}, which is not one of {_list(allowed)}")
        if not grammar.match(value):
            raise untrusted(f"the value that the service sent for {name} is not one that it can have")
    return _postgres(connect, ca_file)


def _postgres(connect: Connect, ca_file: Path) -> dict[str, str]:
    if not 1 <= connect.port <= 65535:
        raise untrusted("the port that the service sent is none")
    told = dict(connect.env)
    variables = {
        "PGHOST": connect.host,
        "PGPORT": str(connect.port),
        "PGUSER": connect.user,
        "PGPASSWORD": connect.secret.expose(),
        "PGDATABASE": connect.database or told.get("PGDATABASE", ""),
    }
    for name, value in variables.items():
        if not _FROM_SERVICE["postgres"][name].match(value):
            raise untrusted(f"the value that the service sent for {name} is not one that it can have")
    if not _FILE.match(str(ca_file)):
        raise Failure(Exit.USAGE, "the folder for temporary files has characters that an environment file cannot hold")
    # GSS would be tried before TLS, and a broker of ours never speaks it.
    return {**variables, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(ca_file), "PGGSSENCMODE": "disable"}


def child_environment(inherited: Mapping[str, str], granted: Granted, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the command: the job's, without what could speak as the job and without what
    competes with ``variables``, and with ``variables`` and the names of the session and its chain. Pure."""
    ours = {*CI_TOKEN_VARIABLES, *OWN_IDENTITY_VARIABLES}
    kept = {name: value for name, value in inherited.items() if name not in ours}
    if granted.connect is not None:
        prefixes, harmless = _KEPT[granted.connect.protocol]
        kept = {name: value for name, value in kept.items() if not name.startswith(prefixes) or name in harmless}
    return {**kept, "COUNTERSIGN_SESSION": granted.session_id, **variables}


def agent_environment(
    inherited: Mapping[str, str], passed: Sequence[str], own: Mapping[str, str], *, keep_identity: bool
) -> dict[str, str]:
    """Return the whole environment of an agent: an allow-list, what ``passed`` names, and ``own``, the variables by
    which it is its own hop. Every credential of the job is gone, known to us or not; with ``keep_identity`` those stay
    by which the CI's services know the job. Raises Failure (usage) for a name that may not be passed. Pure."""
    for name in passed:
        if not _NAME.match(name) or name not in inherited:
            raise Failure(Exit.USAGE, f"--pass {name}: there is no such variable")
        if name in OWN_IDENTITY_VARIABLES or (name in CI_CREDENTIALS and not keep_identity):
            raise Failure(
                Exit.USAGE,
                f"--pass {name}: with it the agent could speak as this job",
                hint="It has a hop of its own. `--keep-identity` is the exception, and says so.",
            )
    allowed = {*_AGENT_KEEPS, *passed, *(CI_CREDENTIALS if keep_identity else ())}
    kept = {
        name: value
        for name, value in inherited.items()
        if name in allowed or (name.startswith("LC_") and _NAME.match(name))
    }
    return {name: value for name, value in kept.items() if name not in OWN_IDENTITY_VARIABLES} | dict(own)


def checked_authority(ca_pem: str) -> bytes:
    """Return the authority's certificates as a file's bytes. Raises Failure on anything but certificates. Pure."""
    if len(ca_pem) > _MAX_PEM or not _PEM.match(ca_pem):
        raise untrusted("what the service sent as the broker's authority is not a list of certificates")
    return ca_pem.replace("\r\n", "\n").encode("ascii")


@contextmanager
def authority_file(ca_pem: str) -> Iterator[Path]:
    """Give the path of a 0600 file with the broker's authority, in a folder of ours (0700); both are gone after."""
    data = checked_authority(ca_pem)
    with tempfile.TemporaryDirectory(prefix="countersign-") as folder:
        path = Path(folder, "ca.pem")
        write_private(path, data)
        yield path


def kept_authority_file(ca_pem: str, folder: str) -> Path:
    """Return the path of such a file that stays, under ``folder`` (empty: the system's), for later steps of a job."""
    data = checked_authority(ca_pem)
    path = Path(tempfile.mkdtemp(prefix="countersign-", dir=folder or None), "ca.pem")
    write_private(path, data)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only this user reads. Raises Failure where something is there already: following a link
    that somebody planted would write over its target."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path} cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def as_shell(variables: Mapping[str, str]) -> str:
    """Return lines for a POSIX shell's ``eval``. Pure."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def as_lines(variables: Mapping[str, str]) -> str:
    """Return ``NAME=value`` lines, for dotenv readers and GitHub's ``$GITHUB_ENV``. The grammars leave nothing in a
    value that either would read otherwise: no newline, quote, ``#``, ``$`` or space. Pure."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names)


def untrusted(what: str) -> Failure:
    """Return the failure for words of the service that are not what they must be."""
    return Failure(Exit.UNREACHABLE, what, hint="Nothing was started. Check that COUNTERSIGN_API is the right service.")
