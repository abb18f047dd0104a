"""The chains table: hops, put once by whoever signed them (``sign`` and the broker), never updated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pynamodb.attributes import UnicodeAttribute

from chalicelib.domain.chain import Hop
from chalicelib.domain.errors import AlreadyExists
from chalicelib.domain.identifiers import HopId, Txn
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.tables import Row, Tables, matching, one, put_new, under

CHAINS: Final = "chains"


class ChainRow(Row):
    """Key: ``txn``, and ``DD#HOP``, so that a chain reads back in order of depth."""

    txn = UnicodeAttribute(hash_key=True)
    place = UnicodeAttribute(range_key=True)


class DynamoChains:
    """Implements ``domain.store.Chains``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(ChainRow, CHAINS)

    def put(self, hop: Hop) -> None:
        rows, place = self._rows, _place(hop)
        put_new(
            rows(txn=hop.txn, place=place, doc=to_document(hop)),
            rows.txn.does_not_exist(),
            AlreadyExists("this hop is written already", hop=hop.id),
            lambda: one(rows, hop.txn, place, missing="there is no such hop"),
        )

    def hops(self, txn: Txn) -> Mapping[HopId, Hop]:
        found: dict[HopId, Hop] = {}
        for row in under(self._rows, txn):
            hop = from_document(Hop, row.doc)
            holds = hop.txn == txn and _place(hop) == row.place and hop.id not in found
            found[hop.id] = matching(hop, holds=holds, store=CHAINS)
        return found


def _place(hop: Hop) -> str:
    return f"{hop.depth:02d}#{hop.id}"
