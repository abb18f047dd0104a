"""A copy of evidence as stores, from a folder or an archive: what a review of one session or chain reads, without AWS.

Rules: every row is read when the copy is opened; one that cannot be read, or lies under another row's name, is a
*fault* that names its file, and is left out: so whoever opens a copy must take the faults with the stores. There
is nothing here that writes. Signatures are not looked at either (``services.verify``).
Layout: ``docs/data_schema.md``, "Evidence folder".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from chalicelib.domain.activation import Activation
from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.identifiers import AskId, HopId, PersonId, SessionId, Txn
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.session import Session
from chalicelib.domain.signature import KeyPurpose
from chalicelib.store.archive_file import ArchiveFiles
from chalicelib.store.folder_files import MANIFEST, OBJECTS, WHOLE_VERSION, DirectoryFiles, Fault, FolderFiles
from chalicelib.store.plain_documents import read_document

T = TypeVar("T")
Row: TypeAlias = Hop | Session | ConnectionRow | Ask | Answer | Use | Revocation
OPENED: Final = "opened"


def hop_path(hop: Hop) -> str:
    return f"chains/{hop.txn}/{hop.depth:02d}-{hop.id}.json"


def session_path(session: Session) -> str:
    return f"sessions/{session.id}.json"


def connection_path(row: ConnectionRow) -> str:
    return f"connections/{row.session_id}/{row.id}.json"


def ask_path(ask: Ask) -> str:
    return f"asks/{ask.id}.json"


def answer_path(answer: Answer) -> str:
    """Named by the hash of the person's id, which an IdP chose and no file system need take."""
    return f"answers/{answer.ask_id}/{sha256_hex(answer.person.encode())[:32]}.json"


def use_path(use: Use) -> str:
    return f"uses/{use.ask_id}/{use.n}.json"


def revocation_path(revocation: Revocation) -> str:
    return f"revocations/{revocation.number:08d}.json"


def opened_path(txn: str) -> str:
    """Where an issuer's proof lies in the clear."""
    return f"{OPENED}/{txn}.json"


def activation_path(activation: Activation) -> str:
    return f"activations/{activation.serial:08d}.json"


def keys_path(purpose: str) -> str:
    return f"keys/{purpose}.json"


class FolderChains:
    def __init__(self, hops: Sequence[Hop]) -> None:
        self._hops = hops

    def hops(self, txn: Txn) -> Mapping[HopId, Hop]:
        return {hop.id: hop for hop in self._hops if hop.txn == txn}


class FolderSessions:
    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = {session.id: session for session in sessions}

    def get(self, session_id: SessionId) -> Session:
        if session_id not in self._sessions:
            raise NotFound("there is no such session", session=session_id)
        return self._sessions[session_id]

    def of_txn(self, txn: Txn) -> Sequence[Session]:
        return [self._sessions[key] for key in sorted(self._sessions) if self._sessions[key].txn == txn]

    def created_on(self, day: date) -> Sequence[SessionId]:
        return [key for key in sorted(self._sessions) if self._sessions[key].created_at.astimezone(UTC).date() == day]

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        return [self._sessions[key] for key in dict.fromkeys(session_ids) if key in self._sessions]


class FolderConnections:
    def __init__(self, rows: Sequence[ConnectionRow]) -> None:
        self._rows = rows

    def of_session(self, session_id: SessionId) -> Sequence[ConnectionRow]:
        return sorted((row for row in self._rows if row.session_id == session_id), key=lambda row: row.id)


class FolderAsks:
    def __init__(self, asks: Sequence[Ask]) -> None:
        self._asks = {ask.id: ask for ask in asks}

    def get(self, ask_id: AskId) -> Ask:
        if ask_id not in self._asks:
            raise NotFound("there is no such ask", ask=ask_id)
        return self._asks[ask_id]


class FolderAnswers:
    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers

    def of_ask(self, ask_id: AskId) -> Sequence[Answer]:
        found = [answer for answer in self._answers if answer.ask_id == ask_id]
        return sorted(found, key=lambda answer: PersonId(answer.person))


class FolderUses:
    def __init__(self, uses: Sequence[Use]) -> None:
        self._uses = uses

    def of_ask(self, ask_id: AskId) -> Sequence[Use]:
        return sorted((use for use in self._uses if use.ask_id == ask_id), key=lambda use: use.n)


class FolderRevocations:
    """Those that a copy's hops and sessions have: the feed has holes here, and its end is the last of them."""

    def __init__(self, revocations: Sequence[Revocation]) -> None:
        self._revocations = sorted(revocations, key=lambda row: row.number)

    def any_of(self, keys: frozenset[str]) -> Revocation | None:
        return min((row for row in self._revocations if row.key in keys), key=lambda row: row.key, default=None)


class FolderObjects:
    """Of each object a copy holds one version: that which its recording's manifest names."""

    def __init__(self, files: FolderFiles) -> None:
        self._files = files

    def get(self, key: str, version_id: str | None = None) -> bytes:  # noqa: ARG002 the copy holds that one
        return self._files.read(f"{OBJECTS}/{key}")

    def keys(self, prefix: str) -> Sequence[str]:
        return [path.removeprefix(f"{OBJECTS}/") for path in self._files.under(f"{OBJECTS}/{prefix}")]


class FolderKeys:
    """The keys that came with the copy: who vouches for them is another question (``services.anchors``)."""

    def __init__(self, keys: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
        self._keys = keys

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        return self._keys.get(purpose, {})


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderStores:
    """Implements ``domain.reading.EvidenceStores``. ``subject`` is what was copied, ``sha256`` the copy's own hash;
    ``whole``: it holds besides what shows that its rows are all, which ``files`` gives. ``opened`` are the issuers'
    proofs that it holds in the clear, by txn."""

    subject: str
    made_at: str
    sha256: str
    whole: bool
    files: FolderFiles
    rows: Sequence[Row]
    chains: FolderChains
    sessions: FolderSessions
    connections: FolderConnections
    asks: FolderAsks
    answers: FolderAnswers
    uses: FolderUses
    revocations: FolderRevocations
    activations: Sequence[Activation]
    objects: FolderObjects
    keys: FolderKeys
    opened: Mapping[str, bytes]


def open_copy(path: Path) -> tuple[FolderStores, tuple[Fault, ...]]:
    """Return the stores in the folder or archive at ``path``, and everything about its files that does not hold.

    Raises NotFound where it is no copy of evidence at all, StoreUnavailable where it could not be read.
    """
    archive = None if path.is_dir() else ArchiveFiles(path)
    stores, faults = _open(FolderFiles(archive if archive is not None else DirectoryFiles(path)))
    if archive is not None and not stores.whole:
        what = "lists a copy that is no archive: it was put together by somebody else"
        faults = (*faults, Fault(key=MANIFEST, kind="altered", what=what))
        stores = replace(stores, whole=True)
    return stores, faults


def open_folder(folder: Path) -> tuple[FolderStores, tuple[Fault, ...]]:
    """Return the stores in ``folder``, as :func:`open_copy` does."""
    return _open(FolderFiles(DirectoryFiles(folder)))


def _open(files: FolderFiles) -> tuple[FolderStores, tuple[Fault, ...]]:
    hops, sessions = _rows(files, Hop, "chains", hop_path), _rows(files, Session, "sessions", session_path)
    connections, asks = _rows(files, ConnectionRow, "connections", connection_path), _rows(files, Ask, "asks", ask_path)
    answers, uses = _rows(files, Answer, "answers", answer_path), _rows(files, Use, "uses", use_path)
    revocations = _rows(files, Revocation, "revocations", revocation_path)
    stores = FolderStores(
        subject=files.manifest.subject,
        made_at=files.manifest.made_at,
        sha256=files.manifest.sha256,
        whole=files.manifest.version == WHOLE_VERSION,
        files=files,
        rows=(*hops, *sessions, *connections, *asks, *answers, *uses, *revocations),
        chains=FolderChains(hops),
        sessions=FolderSessions(sessions),
        connections=FolderConnections(connections),
        asks=FolderAsks(asks),
        answers=FolderAnswers(answers),
        uses=FolderUses(uses),
        revocations=FolderRevocations(revocations),
        activations=_rows(files, Activation, "activations", activation_path),
        objects=FolderObjects(files),
        keys=FolderKeys({purpose.value: _keys(files, purpose.value) for purpose in KeyPurpose}),
        opened={Path(path).stem: files.read(path) for path in files.under(f"{OPENED}/")},
    )
    return stores, tuple(files.faults)


def _rows(files: FolderFiles, kind: type[T], folder: str, path_of: Callable[[T], str]) -> list[T]:
    found: list[T] = []
    for path in files.under(f"{folder}/"):
        try:
            row = read_document(kind, files.read(path).decode())
        except (StoreUnavailable, UnicodeDecodeError):
            files.fault(path, "altered", "cannot be read")
            continue
        if path_of(row) != path:
            files.fault(path, "altered", "is another one than its name says")
            continue
        found.append(row)
    return found


def _keys(files: FolderFiles, purpose: str) -> Mapping[str, Mapping[str, str]]:
    path = keys_path(purpose)
    if path not in files.under(path):
        return {}
    try:
        keys = json.loads(files.read(path))["keys"]
        found = {str(key["kid"]): {str(name): str(value) for name, value in key.items()} for key in keys}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        files.fault(path, "altered", "holds no keys")
        return {}
    return found
