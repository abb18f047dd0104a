"""The memory stores as tables with streams: their rows as images with DynamoDB's type tags, and what changed of them as
the events that Lambda is given.

    stores.sessions.rows.clear()                    # whatever happens to a row, by whomever
    for event in stores.rows.events(clock.now()):   # is told once, in order, as the streams tell it

``images`` counts a row's revision up with each change that it sees, as every writer of ours does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from chalicelib.domain.archived_item import TABLE_KEYS, RowState, key_text, state_of
from chalicelib.domain.canonical import Json
from chalicelib.store.documents import to_document

if TYPE_CHECKING:
    from tests.fakes.memory import MemoryStores

PREFIX: Final = "cs"
Image = dict[str, dict[str, str]]
_REVISED: Final = frozenset({"sessions", "connections"})


def _text(**values: str | int) -> Image:
    return {name: {"N" if isinstance(value, int) else "S": str(value)} for name, value in values.items()}


def _rows(stores: MemoryStores) -> Iterator[tuple[str, Image]]:
    for hop in stores.chains.rows.values():
        yield "chains", _text(txn=hop.txn, place=f"{hop.depth:02d}#{hop.id}", doc=to_document(hop))
    for session in stores.sessions.rows.values():
        yield "sessions", _text(id=session.id, txn=session.txn, doc=to_document(session))
    for row in stores.connections.rows.values():
        yield "connections", _text(session=row.session_id, id=row.id, doc=to_document(row))
    for ask in stores.asks.rows.values():
        yield "asks", _text(id=ask.id, line="ask", doc=to_document(ask))
    for answer in stores.answers.rows.values():
        yield "answers", _text(ask=answer.ask_id, person=answer.person, doc=to_document(answer))
    for use in stores.uses.rows.values():
        yield "uses", _text(ask=use.ask_id, n=use.n, doc=to_document(use))
    for activation in stores.activations.rows:
        yield "activations", _text(line="activation", serial=activation.serial, doc=to_document(activation))
    for revocation in stores.revocations.rows.values():
        document = to_document(revocation)
        yield "revocations", _text(id=f"key#{revocation.key}", doc=document)
        yield "revocations", _text(id=f"feed#{revocation.number}", doc=document)
    if stores.revocations.rows:
        yield "revocations", _text(id="epoch", number=len(stores.revocations.rows))
    for key, (payload, expires) in stores.once.rows.items():
        yield "once", _text(id=key, payload=payload, expires=expires)


class MemoryTables:
    """Implements ``domain.archived_item.Rows``, and streams. ``numbers`` count per deployment, as no two changes of one
    row ever have one number."""

    def __init__(self, stores: MemoryStores) -> None:
        self._stores = stores
        self._revisions: dict[tuple[str, str], tuple[str, int]] = {}
        self._told: dict[tuple[str, str], Image] = {}
        self._number = 1000

    def images(self) -> dict[tuple[str, str], Image]:
        """Return every row now, by table and key text."""
        found: dict[tuple[str, str], Image] = {}
        for table, image in _rows(self._stores):
            row = table, key_text({name: image[name] for name in TABLE_KEYS[table]})
            if table in _REVISED:
                document, revision = self._revisions.get(row, ("", 0))
                if document != image["doc"]["S"]:
                    self._revisions[row] = image["doc"]["S"], revision + 1
                image |= _text(revision=self._revisions[row][1])
            found[row] = image
        return found

    def events(self, now_is: datetime) -> list[dict[str, Json]]:
        """Return one event a table with what has changed since the last call."""
        now, before = self.images(), self._told
        records: dict[str, list[Json]] = {}
        for row in dict.fromkeys((*before, *now)):
            if now.get(row) != before.get(row):
                records.setdefault(row[0], []).append(self._record(row[0], before.get(row), now.get(row), now_is))
        self._told = now
        return [{"Records": found} for found in records.values()]

    def states(self, table: str, keys: Sequence[str]) -> Mapping[str, RowState]:
        images = self.images()
        found = {key: state_of(table, TABLE_KEYS[table], images[table, key]) for key in keys if (table, key) in images}
        return {key: state for key, state in found.items() if state is not None}

    def keys(self, table: str) -> Iterator[str]:
        yield from (key for of, key in self.images() if of == table)

    def _record(self, table: str, before: Image | None, after: Image | None, at: datetime) -> Json:
        self._number += 1
        image: Any = after if after is not None else before
        told: dict[str, Any] = {
            "Keys": {name: image[name] for name in TABLE_KEYS[table]},
            "SequenceNumber": str(self._number),
            "ApproximateCreationDateTime": at.timestamp(),
        }
        told |= {"OldImage": before} if before is not None else {}
        told |= {"NewImage": after} if after is not None else {}
        name = "INSERT" if before is None else "REMOVE" if after is None else "MODIFY"
        arn = f"arn:aws:dynamodb:eu-west-1:1:table/{PREFIX}-{table}/stream/2026"
        return {"eventID": str(self._number), "eventName": name, "eventSourceARN": arn, "dynamodb": told}
