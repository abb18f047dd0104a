"""Writes a folder of evidence: a file a row, the objects byte for byte, the public keys, and their manifest.

Rules: into a new or an empty folder only, so that nothing is mixed with another copy; every file is new; the manifest
is last, so that a copy that broke off is none. A session's verifier is left out: it proves nothing to a reader, and a
copy travels. Layout: ``docs/data_schema.md``, "Evidence folder".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.copy_statement import CopyStatement, stored_statement
from chalicelib.domain.errors import AlreadyExists, StoreUnavailable
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.session import Session
from chalicelib.store.documents import to_document
from chalicelib.store.folder import (
    answer_path,
    ask_path,
    connection_path,
    hop_path,
    keys_path,
    opened_path,
    revocation_path,
    session_path,
    use_path,
)
from chalicelib.store.folder_files import FOLDER_VERSION, MANIFEST, OBJECTS, STATEMENT, FileEntry, manifest_bytes

Row: TypeAlias = Hop | Session | ConnectionRow | Ask | Answer | Use | Revocation

_README: Final = """\
Evidence of one session or chain of Countersign, copied from its tables and its bucket.

To verify it, on any machine, with no access to anything:

    pip install 'countersign[audit]'
    countersign verify THIS_FOLDER --trust fingerprints.txt
    countersign review and replay take this folder too.

fingerprints.txt is the file that `countersign verify --write-trust` wrote when you were taken on; without it the keys
here vouch for themselves, and the answer is UNANCHORED.

chains, sessions, connections, asks, answers, uses, revocations: the rows, a JSON file each. Sessions are without their
secret's verifier: nothing is verified with it. objects: segments and manifests of the recordings, byte for byte. keys:
the public keys of each purpose. MANIFEST.json: every file with its SHA-256; its own hash stands for the whole copy.
"""

_WHOLE: Final = """
inclusions.ndjson: for every row the change that made it, as it was archived, and its path to the signed root of the
hourly digest that counted it (RFC 9162, section 2.1.3); objects/digests: those digests, without a gap; they name by
id what else happened in these hours, and hold nothing of it. objects/boots: the last word of the brokers that ran it.
activations, objects/bundles: the configuration that everything was decided under. events.ndjson: what was told of it.
REPORT.txt, REPORT.json: what the verifier said when the copy was made. STATEMENT.json: who made the copy and when,
signed by the service over the SHA-256 of MANIFEST.json.

An archive is this folder as one tar file; `countersign verify THIS_FILE --trust fingerprints.txt` needs nothing but
`pip install countersign`.
"""


class FolderCopy:
    """Implements ``services.copy_evidence.EvidenceOut``. Not thread-safe."""

    def __init__(self, folder: Path, version: int = FOLDER_VERSION) -> None:
        """``version``: of the list of files. Raises AlreadyExists where ``folder`` is there and not empty,
        StoreUnavailable where it cannot be made."""
        self._folder = folder
        self._version = version
        self._files: dict[str, FileEntry] = {}
        self.rows: list[Row] = []
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise AlreadyExists("the folder is not empty: a copy is made into a new one", hint="Name a new folder.")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable("the folder could not be made", hint="Name another folder.") from error

    def hop(self, hop: Hop) -> None:
        self._row(hop_path(hop), hop)

    def session(self, session: Session) -> None:
        self._row(session_path(session), dataclasses.replace(session, verifier=None))

    def connection(self, row: ConnectionRow) -> None:
        self._row(connection_path(row), row)

    def ask(self, ask: Ask) -> None:
        self._row(ask_path(ask), ask)

    def answer(self, answer: Answer) -> None:
        self._row(answer_path(answer), answer)

    def use(self, use: Use) -> None:
        self._row(use_path(use), use)

    def revocation(self, revocation: Revocation) -> None:
        self._row(revocation_path(revocation), revocation)

    def keys(self, purpose: str, keys: Mapping[str, Mapping[str, str]]) -> None:
        self._put(keys_path(purpose), canonical({"keys": [dict(keys[kid]) for kid in sorted(keys)]}))

    def recorded(self, key: str, body: bytes) -> None:
        self._put(f"{OBJECTS}/{key}", body)

    def opened(self, txn: str, proof: bytes) -> None:
        self._put(opened_path(txn), proof)

    def file(self, path: str, body: bytes) -> None:
        """Put a file that is neither a row nor an object."""
        self._put(path, body)

    def state(self, statement: CopyStatement) -> None:
        """Put the service's word on the finished copy, beside the list of files that it is over."""
        self._put(STATEMENT, stored_statement(statement))

    @property
    def files(self) -> tuple[int, int]:
        """How many files there are, and their bytes together; the list of them is not among them."""
        listed = [file.bytes for path, file in self._files.items() if path not in (MANIFEST, STATEMENT)]
        return len(listed), sum(listed)

    def finish(self, subject: str, made_at: datetime) -> str:
        """Write the manifest, and return the hash that stands for the whole copy."""
        self._put("README.txt", (_README if self._version == FOLDER_VERSION else _README + _WHOLE).encode())
        body, sha256 = manifest_bytes(subject, made_at, tuple(self._files.values()), self._version)
        self._put(MANIFEST, body)
        return sha256

    def _row(self, path: str, row: Row) -> None:
        if path not in self._files:  # two sessions may have the same ask or revocation: one file
            self.rows.append(row)
            self._put(path, to_document(row).encode())

    def _put(self, path: str, body: bytes) -> None:
        if path in self._files:
            return
        file = self._folder / path
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with file.open("xb") as out:
                out.write(body)
        except OSError as error:
            raise StoreUnavailable("a file of the copy could not be written", path=path) from error
        self._files[path] = FileEntry(path=path, bytes=len(body), sha256=sha256_hex(body))
