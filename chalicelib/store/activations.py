"""The activations table: which configuration is active. One partition, a row a serial, each put once."""

from __future__ import annotations

from typing import Final

from pynamodb.attributes import NumberAttribute, UnicodeAttribute

from chalicelib.domain.activation import Activation
from chalicelib.domain.errors import Conflict, NotFound
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.tables import Row, Tables, matching, one, put_new, reaching

ACTIVATIONS: Final = "activations"
_LINE: Final = "activation"  # one partition, so that the latest is one consistent read: an index would be stale


class ActivationRow(Row):
    line = UnicodeAttribute(hash_key=True)
    serial = NumberAttribute(range_key=True)


class DynamoActivations:
    """Implements ``domain.store.Activations``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(ActivationRow, ACTIVATIONS)

    def put(self, activation: Activation) -> None:
        taken = Conflict("another configuration was activated meanwhile", serial=activation.serial)
        last = self._last()
        serial, bundle = (last.serial, last.bundle_digest) if last is not None else (0, "")
        if activation.serial != serial + 1 or activation.previous_digest != bundle:
            raise taken
        # Rows are never removed, so what was just read as the last stays the one before this: the condition below is
        # all that a second writer of the same serial can race for.
        rows = self._rows
        put_new(
            rows(line=_LINE, serial=activation.serial, doc=to_document(activation)),
            rows.serial.does_not_exist(),
            taken,
            lambda: one(rows, _LINE, activation.serial, missing="there is no such activation"),
        )

    def latest(self) -> Activation:
        last = self._last()
        if last is None:
            raise NotFound("no configuration was ever activated")
        return last

    def _last(self) -> Activation | None:
        with reaching(ACTIVATIONS):
            found = list(self._rows.query(_LINE, consistent_read=True, scan_index_forward=False, limit=1))
        if not found:
            return None
        last = from_document(Activation, found[0].doc)
        return matching(last, holds=last.serial == found[0].serial, store=ACTIVATIONS)
