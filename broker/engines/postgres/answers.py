"""Masks on what the target answers: result rows, by proved origin and by what detectors find.

A column is masked by rule when RowDescription names a masked column of a table, when it names a view whose definition
derives that column from one, or when the parse does not prove that the expression reads none (on a target with column
rules among those that apply). An origin that is not in the catalogue is not proved. Detectors run on every value.

Rules: what is masked by column is replaced whole (the rule's mode holds where the origin is the very column; what
derives from it is always redacted). Types that cannot hold the mask's text become NULL, since a driver could not
parse it. The row's shape, types and formats never change. ``passes`` means that no byte can differ: forward without
calling ``row``.

What it does not do: it does not decide which rules apply (policy did: ``verdict.masks``), nor look at text in
formats that it does not decode (compressed, encrypted, encoded by the client's own SQL).

Source: PostgreSQL 15 manual, 55.7 Message Formats (RowDescription, DataRow, CopyData).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.engines.postgres.answers_values import Value, is_text, kind_of, mask_found, redact, shown_value
from broker.engines.postgres.origins import EMPTY, NOT_PROVED, STATISTICS, Catalogue
from broker.engines.postgres.row_lines import RowLines
from broker.engines.postgres.statement import CopyKind, Statement
from broker.engines.postgres.statement_reads import view_facts
from broker.engines.postgres.statement_scope import Taint
from broker.masking import Detectors
from chalicelib.domain.errors import ProtocolViolation
from chalicelib.domain.masking import MaskMode, MaskRule

COPY_HINT: Final = "Use SELECT: COPY cannot mask single columns. Or list only columns that no mask names."
_INT16: Final = struct.Struct("!H")
_INT32: Final = struct.Struct("!i")
_LENGTH_AT: Final = _INT32.unpack_from
_NULL: Final = _INT32.pack(-1)
_FIELD: Final = struct.Struct("!IhIhih")


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One column of a RowDescription. ``format`` 0 is text, 1 binary (as the Bind chose it)."""

    name: str
    table_oid: int
    attnum: int
    type_oid: int
    format: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    """``mask``: the rule that covers the column, with its mode; None: only detectors look at it."""

    value: Value
    mask: MaskRule | None
    whole: bool  # the mask replaces the very column that the rule names, so that its mode can be kept


class Masker:
    """Masks the rows of one result set. Made when its description is known; holds no row. Not thread-safe."""

    def __init__(
        self,
        fields: Sequence[Field],
        statement: Statement | None,
        catalogue: Catalogue,
        rules: Sequence[MaskRule],
        detectors: Detectors | None = None,
    ) -> None:
        """``rules``: those that the verdict names; ``detectors``: theirs, if the caller has them compiled already."""
        self.columns = tuple(field.name for field in fields)
        self._detectors = detectors if detectors is not None else Detectors(rules)
        covering = sorted((rule for rule in rules if rule.columns), key=_most_hiding_first)
        self._columns = tuple(_column(index, fields, statement, catalogue, covering) for index in range(len(fields)))
        self._count = _INT16.pack(len(self._columns))
        self.lines = RowLines(
            len(fields), text=all(is_text(column.value) for column in self._columns), shown=self.shown
        )
        self._shown_as = tuple((is_text(column.value), column) for column in self._columns)
        self._any_mask = any(column.mask is not None for column in self._columns)
        self.masked_columns = tuple(
            field.name for field, column in zip(fields, self._columns, strict=True) if column.mask is not None
        )
        self.passes = not self._any_mask and self._detectors.empty

    def row(self, body: bytes) -> bytes:
        """Return a DataRow's body as the client may see it: ``body`` itself where nothing is masked.

        Raises ProtocolViolation when it does not have the described columns.
        """
        if self.passes:
            return body
        if not self._any_mask and not self._may_hold(body):
            return body
        if len(body) < 2 or _INT16.unpack_from(body)[0] != len(self._columns):
            raise ProtocolViolation("the target sent a row of another shape than it described")
        parts = [body[:2]]
        at = 2
        for column in self._columns:
            value, at = _value(body, at)
            parts.append(_NULL if value is None else self._masked(column, value))
        if at != len(body):
            raise ProtocolViolation("the target sent a row with bytes left over")
        return b"".join(parts)

    def shown(self, body: bytes) -> list[str | None]:
        """Return the values of a masked row as text, for the recording; binary ones as far as they are known, else in
        hexadecimal. Raises ProtocolViolation."""
        # Each cell of each recorded row comes here: a call for each would be a third of what recording it costs.
        if body[:2] != self._count:
            raise ProtocolViolation("the target sent a row of another shape than it described")
        found: list[str | None] = []
        at = 2
        text = body.decode() if body.isascii() else None  # lengths below 128 and ASCII: nothing to decode by cell
        try:
            for as_text, column in self._shown_as:
                (length,) = _LENGTH_AT(body, at)
                at += 4
                if length < 0:
                    if length != -1:
                        raise ProtocolViolation("the target sent a row that ends early")
                    found.append(None)
                    continue
                end = at + length
                if not as_text:
                    found.append(shown_value(body[at:end], column.value))
                else:
                    found.append(body[at:end].decode("utf-8", "replace") if text is None else text[at:end])
                at = end
        except struct.error:
            raise ProtocolViolation("the target sent a row that ends early") from None
        if at != len(body):  # more than was told would be seen and not recorded
            raise ProtocolViolation("the target sent a row of another length than its values have")
        return found

    def _may_hold(self, body: bytes) -> bool:
        """Whether a detector could find something: what is not in the row as it lies there is in none of its values,
        but for those that are decoded first."""
        return self._detectors.may_hit(body) or any(column.value.decodes(body) for column in self._columns)

    def _masked(self, column: _Column, value: bytes) -> bytes:
        if column.mask is not None:
            mode = column.mask.mode if column.whole or column.mask.mode is MaskMode.NULL else MaskMode.REDACT
            masked = redact(value, column.value, column.mask.name, mode)
        else:
            masked = mask_found(value, column.value, self._detectors)
        return _NULL if masked is None else _INT32.pack(len(masked)) + masked


def read_fields(body: bytes) -> tuple[Field, ...]:
    """Return the columns of a RowDescription's body. Raises ProtocolViolation."""
    try:
        (count,) = _INT16.unpack_from(body)
        at = 2
        found: list[Field] = []
        for _ in range(count):
            end = body.index(b"\0", at)
            table_oid, attnum, type_oid, _, _, form = _FIELD.unpack_from(body, end + 1)
            found.append(
                Field(
                    name=body[at:end].decode("utf-8", "replace"),
                    table_oid=table_oid,
                    attnum=attnum,
                    type_oid=type_oid,
                    format=form,
                )
            )
            at = end + 1 + _FIELD.size
    except (struct.error, ValueError) as error:
        raise ProtocolViolation("the target described a result in a way that is not PostgreSQL's") from error
    if at != len(body):
        raise ProtocolViolation("the target described a result with bytes left over")
    return tuple(found)


def copy_out_maskable(statement: Statement, rules: Sequence[MaskRule]) -> bool:
    """Whether what this COPY sends can be masked: no column of it is covered by a rule that applies. If not, Block it
    with COPY_HINT. A COPY in binary is another matter: see ``CopyMasker``."""
    if statement.copy is not CopyKind.OUT:
        return True
    covering = [rule for rule in rules if rule.columns]
    if not covering:
        return True
    if statement.output is None:
        return False
    return not any(_covering(column.taint, covering) for column in statement.output.shape)


class CopyMasker:
    """Masks COPY TO STDOUT by detectors, one CopyData message (a row, in text and csv) at a time."""

    def __init__(self, rules: Sequence[MaskRule], detectors: Detectors | None = None) -> None:
        self._detectors = detectors if detectors is not None else Detectors(rules)
        self.passes = self._detectors.empty

    def line(self, data: bytes, *, text: bool = True) -> bytes:
        """Return the body of a CopyData message as the client may see it. ``text`` False (binary): a message in which a
        detector finds something cannot be rewritten, and raises ProtocolViolation, so that the connection ends.

        A rule with mode ``null`` redacts: the row's text has a NULL of the client's own choosing.
        """
        if self.passes or not self._detectors.may_hit(data):
            return data
        hits = self._detectors.find(data)
        if not hits:
            return data
        if not text:
            raise ProtocolViolation("a masked value stands in COPY's binary format")
        return self._detectors.redact_bytes(data)


# Origins


def _column(
    index: int, fields: Sequence[Field], statement: Statement | None, catalogue: Catalogue, covering: list[MaskRule]
) -> _Column:
    field = fields[index]
    value = kind_of(field.type_oid, field.format)
    if not covering:
        return _Column(value=value, mask=None, whole=False)
    own = catalogue.masked_column(field.table_oid, field.attnum) if field.table_oid else EMPTY
    taint = own or _derived(index, len(fields), field, statement, catalogue)
    mask = _covering(taint, covering)
    return _Column(value=value, mask=mask, whole=bool(own) and NOT_PROVED not in own)


def _derived(index: int, count: int, field: Field, statement: Statement | None, catalogue: Catalogue) -> Taint:
    """Return what a column may hold that is not itself a masked column of a table."""
    if not field.table_oid:
        output = statement.output if statement is not None else None
        return frozenset({NOT_PROVED}) if output is None else output.taint(index, count)
    relation = catalogue.relations.get(field.table_oid)
    if relation is None:
        return frozenset({NOT_PROVED})
    if relation.schema in ("pg_catalog", "information_schema"):
        return frozenset({NOT_PROVED}) if relation.name in STATISTICS else EMPTY
    if relation.kind in ("v", "m"):
        shape = view_facts(catalogue, relation).shape
        if any(column.star for column in shape) or not 0 < field.attnum <= len(shape):
            return frozenset().union(*(column.taint for column in shape), {NOT_PROVED})
        return shape[field.attnum - 1].taint
    return EMPTY


def _covering(taint: Taint, covering: Sequence[MaskRule]) -> MaskRule | None:
    """Return the rule that covers ``taint``: the most hiding one, by name where several are."""
    if not taint:
        return None
    return next((rule for rule in covering if NOT_PROVED in taint or not taint.isdisjoint(rule.columns)), None)


def _most_hiding_first(rule: MaskRule) -> tuple[int, str]:
    return (MaskMode.NULL, MaskMode.REDACT, MaskMode.PARTIAL).index(rule.mode), rule.name


def _value(body: bytes, at: int) -> tuple[bytes | None, int]:
    """Return the value at ``at`` and where the next one is."""
    if at + 4 > len(body):
        raise ProtocolViolation("the target sent a row that ends early")
    (length,) = _INT32.unpack_from(body, at)
    if length == -1:
        return None, at + 4
    end = at + 4 + length
    if length < 0 or end > len(body):
        raise ProtocolViolation("the target sent a row that ends early")
    return body[at + 4 : end], end
