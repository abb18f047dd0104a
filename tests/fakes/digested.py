"""A chain's evidence with its archived changes and hourly digests, in any stores, and whoever may tamper with it.

digested = DigestedIn(archive, tables)      # archived, and two hours digested
digested.administrator.delete_row("answers", key)
digested.verify().findings
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from chalicelib.config.files import bundle_digest, encode_bundle
from chalicelib.domain.activation import Activation, bundle_key
from chalicelib.domain.canonical import Json
from chalicelib.domain.store import Keys, Objects, Stores
from chalicelib.identity.jws import sign_activation
from chalicelib.services.anchors import Anchors
from chalicelib.services.archive_items import ArchiveItems, stream_changes
from chalicelib.services.digest_hour import DigestHours
from chalicelib.services.reviewed import Finding
from chalicelib.services.verify import Anchor, EvidenceSource
from chalicelib.services.verify_all import ArchiveSource, ArchiveVerification, verify_all
from chalicelib.store.documents import from_document, to_document
from tests.fakes.archive import Archive, ArchiveIn
from tests.fakes.broker import MemoryAudit
from tests.fakes.memory import MemoryObjects, MemoryStores
from tests.fakes.tables import PREFIX

HOUR_S = 3600.0
S = TypeVar("S", bound=Stores)
Change = Callable[[dict[str, Any]], object]


class Administrator(Protocol):
    """Who has every right on the tables and the bucket, and none on a key."""

    def edit_row(self, table: str, key: Mapping[str, str | int], change: Change) -> None:
        """Change the document of a row, without the service."""
        ...

    def delete_row(self, table: str, key: Mapping[str, str | int]) -> None: ...
    def put_object(self, key: str, body: bytes, *, copies: bool = False) -> None:
        """Put it over whatever is there."""
        ...

    def delete_object(self, key: str, *, copies: bool = False) -> None: ...


class DigestedIn(Generic[S]):
    """``archive`` archived and digested. ``events`` gives what the streams tell that was not given yet."""

    def __init__(
        self,
        archive: ArchiveIn[S],
        administrator: Administrator,
        events: Callable[[], list[Any]],
        prefix: str,
        *,
        young: bool = False,
    ) -> None:
        """``young``: no hour is over yet, so that there is no digest, and its hops and grants live."""
        self.archive = archive
        self.stores = archive.stores
        self.clock = archive.clock
        self.administrator = administrator
        self.audit = MemoryAudit()
        self.running = {"function:mint": "a" * 64}
        self._events = events
        self._prefix = prefix
        self._archive_items = ArchiveItems(objects=self.stores.objects, audit=self.audit)
        self.pump()
        if not young:
            self.clock.advance(HOUR_S + 700)
            self.digest()
            self.clock.advance(HOUR_S)
            self.digest()

    def pump(self) -> None:
        """Deliver what the streams tell, as Lambda does."""
        for event in self._events():
            self._archive_items(stream_changes(event, self._prefix))

    def digest(self) -> Sequence[str]:
        """Make the digests that are due."""
        made = DigestHours(
            objects=self.stores.objects,
            copies=self.stores.digest_copies,
            signer=self.stores.signer("digest"),
            code=self,
            clock=self.clock,
            audit=self.audit,
        )
        return made()

    def now(self) -> Mapping[str, str]:
        """Return what code runs: change ``running`` to deploy."""
        return dict(self.running)

    def verify(
        self,
        *,
        told: bool = True,
        since: datetime | None = None,
        copies: bool = False,
        keys: Keys | None = None,
        anchors: Anchors | None = None,
        head: str = "",
    ) -> ArchiveVerification:
        """Verify all; ``told``: the streams go on while it waits for changes that are on their way."""
        second: Objects | None = self.stores.digest_copies if copies else None
        source = ArchiveSource(
            evidence=EvidenceSource(stores=self.stores, anchor=Anchor.AWS),
            objects=self.stores.objects,
            copies=second,
            rows=self.stores.rows,
            boots=self.stores.connections,
        )
        pause = (lambda _seconds: self.pump()) if told else (lambda _seconds: None)
        return verify_all(source, anchors, self.clock, since=since, pause=pause, head=head)

    def named(self, **how: Any) -> dict[str, list[str]]:
        """Return each finding's key with its kinds."""
        found: dict[str, list[str]] = {}
        for finding in self.findings(**how):
            found.setdefault(finding.key, []).append(finding.kind.value)
        return found

    def findings(self, **how: Any) -> Sequence[Finding]:
        return self.verify(**how).findings

    def items(self, table: str) -> list[str]:
        """Return the keys of the objects that hold a table's changes."""
        return list(self.stores.objects.keys(f"items/v1/{table}/"))

    def digests(self) -> list[str]:
        return list(self.stores.objects.keys("digests/v1/"))


class MemoryAdministrator:
    """Implements ``Administrator`` over the memory stores. A row is edited by editing what the store has."""

    def __init__(self, stores: MemoryStores) -> None:
        self._stores = stores

    def edit_row(self, table: str, key: Mapping[str, str | int], change: Change) -> None:
        rows, row = self._row(table, key)
        document = json.loads(to_document(rows[row]))
        change(document)
        rows[row] = from_document(type(rows[row]), json.dumps(document))

    def delete_row(self, table: str, key: Mapping[str, str | int]) -> None:
        rows, row = self._row(table, key)
        del rows[row]

    def put_object(self, key: str, body: bytes, *, copies: bool = False) -> None:
        self._objects(copies).rows[key] = body

    def delete_object(self, key: str, *, copies: bool = False) -> None:
        del self._objects(copies).rows[key]

    def _objects(self, copies: bool) -> MemoryObjects:
        return self._stores.digest_copies if copies else self._stores.objects

    def _row(self, table: str, key: Mapping[str, str | int]) -> tuple[dict[Any, Any], Any]:
        stores: Any = self._stores
        rows: dict[Any, Any] = getattr(stores, table).rows
        match table:
            case "sessions" | "asks":
                return rows, key["id"]
            case "connections":
                return rows, (key["session"], key["id"])
            case "chains":
                depth, _, hop = str(key["place"]).partition("#")
                return rows, (key["txn"], int(depth), hop)
            case "answers":
                return rows, (key["ask"], key["person"])
            case "uses":
                return rows, (key["ask"], key["n"])
        raise AssertionError(table)


class Digested(DigestedIn[MemoryStores]):
    """The same in memory."""

    def __init__(self, *, young: bool = False) -> None:
        archive = Archive()
        stores = archive.stores

        def events() -> list[dict[str, Json]]:
            return stores.rows.events(archive.clock.now())

        super().__init__(archive, MemoryAdministrator(stores), events, PREFIX, young=young)


def signed_activation(on: Digested) -> Activation:
    """Put a bundle, and return its signed activation."""
    files = {"targets.yaml": b"targets: {}\n"}
    key = bundle_key(bundle_digest(files))
    on.stores.objects.put_new(key, encode_bundle(files), content_type="application/json")
    unsigned = Activation(
        serial=1, bundle_digest=bundle_digest(files), previous_digest="", author="a", activated_at=on.clock.now()
    )
    return sign_activation(on.stores.signer("activation"), unsigned)
