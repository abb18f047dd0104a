"""What SQL means within one connection: ``statement``, ``origins`` and ``answers`` behind the relay's ``Language``.

Rules: a text is read under a catalogue that is fresh and of the active configuration; where it is not, the relay asks
the target first (``stale``), and where that cannot be done yet, nothing is proved, so everything is masked. Masks come
by name from the active bundle; a name that is not there ends the connection. Errors, notices and notifications take
the union of the masks that any verdict of this connection named.

What it does not do: decide, send, wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from broker.engines.postgres.answers import COPY_HINT, CopyMasker, Masker, copy_out_maskable, read_fields
from broker.engines.postgres.answers_messages import mask_fields, mask_payload
from broker.engines.postgres.answers_values import kind_of, shown_value
from broker.engines.postgres.catalogues import Catalogues, Known
from broker.engines.postgres.origins import Catalogue, Masked, catalogue_queries, read_catalogue
from broker.engines.postgres.running import CopyRows, Objection, Reading, Rows, ShownBinds
from broker.engines.postgres.statement import CopyKind, Statement, TransactionKind, Understood, understand
from broker.engines.postgres.statement_names import Named, NamedKind, NameTracker
from broker.masking import CLIENT_TEXT
from broker.wire.postgres.fields import Fields
from broker.wire.postgres.framing import frame
from broker.wire.postgres.messages import Bind
from chalicelib.config.bundle import Bundle
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.masking import MaskRule
from chalicelib.domain.operation import Literal

MAX_MASKERS: Final = 256  # kept by description: an application's prepared statements; each is some hundred bytes
MAX_SHOWN_BIND: Final = 8 * 1024  # of one bind value on a card and in the record; the digest binds all of it
MAX_SHOWN_BINDS: Final = 64 * 1024  # of all of them: a frame's size
SESSION_CLASS: Final = "sql:session"

_RENAMES_STATEMENTS: Final = frozenset(
    {NamedKind.PREPARE, NamedKind.DEALLOCATE, NamedKind.DEALLOCATE_ALL, NamedKind.DISCARD_ALL}
)
_RENAMES_PORTALS: Final = frozenset({NamedKind.DECLARE, NamedKind.CLOSE, NamedKind.CLOSE_ALL, NamedKind.DISCARD_ALL})
_ENDS_PORTALS: Final = frozenset({TransactionKind.COMMIT, TransactionKind.ROLLBACK, TransactionKind.ROLLBACK_TO})


class Configuration(Protocol):
    def current(self) -> Bundle:
        """Return the active bundle, from memory. Raises ConfigurationInvalid or StoreUnavailable."""
        ...


class SqlLanguage:
    """The language of one connection. Belongs to its loop."""

    def __init__(
        self,
        *,
        target: str,
        login: str,
        known: Known,
        configuration: Configuration,
        catalogues: Catalogues,
        clock: Clock,
    ) -> None:
        self._target = target
        self._login = login
        self._known = known
        self._configuration = configuration
        self._catalogues = catalogues
        self._clock = clock
        self._names = NameTracker()
        self._private = False
        self._changed = False
        self._uncommitted = False
        self._asked_s = 0.0
        self._maskers: OrderedDict[object, SqlRows] = OrderedDict()

    # What a text means.

    def read(self, text: bytes, types: Sequence[int] = ()) -> Reading:  # noqa: ARG002 part of the seam
        """Return what ``text`` means, as far as the catalogue at hand proves it. See ``running.Language``."""
        return _reading(understand(text.decode(), self._catalogue, self._names.view()))

    def unproved(self, text: bytes) -> Reading:
        """Return what ``text`` means where the catalogue is stale and cannot be asked for: nothing is proved."""
        nothing = replace(
            self._catalogue,
            version=f"unproved:{self._catalogue.version}",
            relations={},
            by_name={},
            attributes={},
            masked_names={},
            definitions={},
            functions={},
            compiled=frozenset(),
            memo={},
        )
        return _reading(understand(text.decode(), nothing, self._names.view()), proved=False)

    def stale(self, reading: Reading) -> bool:
        """Whether the catalogue must be asked for before ``reading`` may be judged. Statements that only concern the
        session never wait: SET TRANSACTION must come before any query, ours included."""
        if all(act.action == SESSION_CLASS for act in reading.acts):
            return False
        masked = self._masked()
        if not self._changed and self._catalogues.usable(self._known, masked):
            return False
        if self._private:
            return True
        shared = self._catalogues.shared(self._target, self._login, masked)
        if shared is None:
            return True
        self._known = shared
        return False

    def questions(self) -> tuple[str, ...]:
        """Return the statements whose answers :meth:`answered` takes."""
        self._asked_s = self._clock.monotonic_s()
        return catalogue_queries(self._masked())

    def answered(self, results: Sequence[Sequence[Sequence[str | None]]], *, in_transaction: bool) -> None:
        """Take a new catalogue. Raises TargetUnavailable."""
        self._known = Known(read_catalogue(results, self._masked()), self._asked_s)
        # What a transaction changed is seen by it alone, and may yet be rolled back: see ``transaction_ended``.
        self._uncommitted = in_transaction and (self._changed or self._uncommitted)
        self._changed = False
        if not in_transaction and not self._private:
            self._catalogues.share(self._target, self._login, self._known)

    def objection(self, reading: Reading, masks: Sequence[str]) -> Objection | None:
        """Return why the broker cannot do what policy asks, or None."""
        rules = self._rules(masks)
        if any(not copy_out_maskable(statement, rules) for statement in _statements(reading)):
            return Objection("COPY would send columns that are masked", COPY_HINT)
        return None

    def binds(self, reading: Reading, bind: Bind, types: Sequence[int]) -> ShownBinds:  # noqa: ARG002 the seam
        """Return the bind values as they may be shown."""
        texts: list[str] = []
        literals: list[Literal] = []
        left = MAX_SHOWN_BINDS
        for number, raw in enumerate(bind.values):
            if raw is None:
                texts.append("NULL")
                continue
            kind = kind_of(types[number] if number < len(types) else 0, bind.format_of(number))
            shown, found = CLIENT_TEXT.literals(shown_value(raw, kind))
            most = min(MAX_SHOWN_BIND, left)
            if len(shown) > most:
                shown = f"{shown[:most]}… ({len(raw)} bytes)"
            left = max(0, left - len(shown))
            texts.append(shown)
            literals += found
        return ShownBinds(tuple(texts), tuple(literals))

    # What comes back.

    def rows(
        self, reading: Reading, number: int, description: bytes, formats: Sequence[int] | None, masks: Sequence[str]
    ) -> Rows:
        """Return the masker of one result, kept by everything that it depends on."""
        statements = _statements(reading)
        statement = statements[number] if number < len(statements) and reading.proved else None
        catalogue = self._catalogue if reading.proved else _without_relations(self._catalogue)
        rules = self._rules(masks)
        chosen = tuple(formats) if formats is not None else None
        key = (description, chosen, rules, catalogue.version, reading.proved, statement)
        kept = self._maskers.get(key)
        if kept is None:
            kept = SqlRows(description, chosen, statement, catalogue, rules)
            self._maskers[key] = kept
            if len(self._maskers) > MAX_MASKERS:
                self._maskers.popitem(last=False)
        return kept

    def copy_rows(self, masks: Sequence[str], *, binary: bool) -> CopyRows:
        """Return the masker of one COPY TO STDOUT."""
        return SqlCopyRows(CopyMasker(self._rules(masks)), binary=binary)

    def fields(self, fields: Fields) -> Fields:
        """Return an error's or notice's fields as the client may see them."""
        told = {letter: text.decode("utf-8", "surrogateescape") for letter, text in fields.items()}
        shown = mask_fields(told, self._union(), self._known.catalogue.masked)
        return {letter: text.encode("utf-8", "surrogateescape") for letter, text in shown.items()}

    def payload(self, payload: bytes) -> bytes:
        """Return a notification's payload as the client may see it."""
        told = payload.decode("utf-8", "surrogateescape")
        return mask_payload(told, self._union(), self._known.catalogue.masked).encode("utf-8", "surrogateescape")

    def client_data(self, data: bytes) -> str:
        """Return COPY data of the client as it may be recorded."""
        return CLIENT_TEXT.mask(data.decode("utf-8", "backslashreplace"))

    # What the server said of names and definitions.

    def parsed(self, name: bytes, reading: Reading) -> None:
        statements = _statements(reading)
        if name and len(statements) == 1:
            self._names.parsed(name.decode(), statements[0])

    def closed(self, name: bytes) -> None:
        self._names.closed(name.decode())

    def bound(self, portal: bytes) -> None:
        """Portals and cursors share names: what FETCH would find under this one is not what was declared."""
        if portal:
            closed = Named(kind=NamedKind.CLOSE, name=portal.decode())
            self._names.ran(Statement(acts=(), word="CLOSE", named=closed))

    def ran(self, reading: Reading, number: int) -> None:
        statements = _statements(reading)
        if number >= len(statements):
            return
        statement = statements[number]
        self._names.ran(statement)
        if statement.transaction is TransactionKind.ROLLBACK_TO and self._uncommitted:
            self._changed = True
        if statement.changes_names:
            self._changed = self._private = True
            self._catalogues.drop(self._target)

    def transaction_ended(self) -> None:
        """The target is idle: what a transaction changed holds for all now, or for nobody."""
        self._changed = self._changed or self._uncommitted
        self._uncommitted = False

    @property
    def _catalogue(self) -> Catalogue:
        return self._known.catalogue

    def _masked(self) -> Masked:
        return Masked.of(self._configuration.current().masks.values(), self._target)

    def _union(self) -> tuple[MaskRule, ...]:
        """Every mask that can apply on this target: a message belongs to no operation (security.md, "NOTICE, ERROR,
        NOTIFY"), and the error of a write quotes the row that a read would have masked."""
        masks = self._configuration.current().masks
        return tuple(rule for _, rule in sorted(masks.items()) if not rule.targets or self._target in rule.targets)

    def _rules(self, names: Sequence[str]) -> tuple[MaskRule, ...]:
        masks = self._configuration.current().masks
        missing = [name for name in names if name not in masks]
        if missing:
            raise ConfigurationInvalid("a mask that policy requires is not configured any more", masks=missing)
        return tuple(masks[name] for name in names)


class SqlRows:
    """``running.Rows`` over a Masker."""

    def __init__(
        self,
        description: bytes,
        formats: tuple[int, ...] | None,
        statement: Statement | None,
        catalogue: Catalogue,
        rules: Sequence[MaskRule],
    ) -> None:
        fields = read_fields(description)
        if formats is not None:
            fields = tuple(replace(field, format=_format(formats, at)) for at, field in enumerate(fields))
        self._masker = Masker(fields, statement, catalogue, rules)
        self.columns: Sequence[str] = self._masker.columns
        self.plain: bool = self._masker.passes

    def row(self, raw: bytes) -> bytes:
        body = raw[5:]
        masked = self._masker.row(body)
        return raw if masked is body else frame(b"D", masked)

    def lines(self, bodies: Sequence[bytes]) -> str:
        return self._masker.lines(bodies)


class SqlCopyRows:
    """``running.CopyRows`` over a CopyMasker."""

    def __init__(self, masker: CopyMasker, *, binary: bool) -> None:
        self._masker = masker
        self._binary = binary
        self.plain: bool = masker.passes

    def row(self, raw: bytes) -> bytes:
        body = raw[5:]
        masked = self._masker.line(body, text=not self._binary)
        return raw if masked is body else frame(b"d", masked)


def _format(formats: tuple[int, ...], at: int) -> int:
    """Result formats: none is all text, one is for all, else one each."""
    if len(formats) > 1:
        return formats[at] if at < len(formats) else 0
    return formats[0] if formats else 0


def _without_relations(catalogue: Catalogue) -> Catalogue:
    return replace(catalogue, relations={}, masked_names={}, attributes={}, memo={})


def _statements(reading: Reading) -> tuple[Statement, ...]:
    return reading.source.statements if isinstance(reading.source, Understood) else ()


def _reading(understood: Understood, *, proved: bool = True) -> Reading:
    statements = understood.statements
    names = [statement.named for statement in statements if statement.named is not None]
    return Reading(
        acts=understood.acts,
        shown=understood.shown_text,
        literals=understood.literals,
        empty=understood.empty,
        refused=understood.refused,
        proved=proved,
        copies_out=any(statement.copy is CopyKind.OUT for statement in statements),
        copies_in=any(statement.copy is CopyKind.IN for statement in statements),
        uses_names=any(_looks_up(named) for named in names),
        renames_statements=any(named.kind in _RENAMES_STATEMENTS for named in names),
        renames_portals=any(named.kind in _RENAMES_PORTALS for named in names)
        or any(s.transaction in _ENDS_PORTALS or s.word in ("CALL", "DO") for s in statements),
        source=understood,
    )


def _looks_up(named: Named) -> bool:
    if named.kind in (NamedKind.EXECUTE, NamedKind.FETCH):
        return True
    return named.inner is not None and named.inner.named is not None and _looks_up(named.inner.named)
