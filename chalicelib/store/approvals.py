"""The asks, answers and uses tables: three kinds of facts, each put once and never updated.

Who puts what differs, so they are three tables with rights of their own: either plane asks, only ``decide`` answers,
and the plane that ran it uses. An approval's state is folded over them by ``domain.ask.fold_approval``, never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.indexes import GlobalSecondaryIndex, KeysOnlyProjection

from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import AlreadyDecided, AlreadyExists, AlreadyUsed
from chalicelib.domain.identifiers import AskId
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.tables import MAX_ROWS, Row, Tables, matching, one, put_new, reaching, under

ASKS: Final = "asks"
ANSWERS: Final = "answers"
USES: Final = "uses"
BY_TIME: Final = "by-time"
_LINE: Final = "ask"


class AsksByTime(GlobalSecondaryIndex["AskRow"]):  # type: ignore[no-untyped-call] # pynamodb's own
    """Finds the ids of recent asks; the rows are read by key. One partition: far fewer than the 1,000 writes a second
    that one takes, and a reader needs no list of days."""

    class Meta:
        index_name = BY_TIME
        projection = KeysOnlyProjection()

    line = UnicodeAttribute(hash_key=True)
    created = UnicodeAttribute(range_key=True)


class AskRow(Row):
    id = UnicodeAttribute(hash_key=True)
    line = UnicodeAttribute(default=_LINE)
    created = UnicodeAttribute()
    by_time = AsksByTime()


class AnswerRow(Row):
    ask = UnicodeAttribute(hash_key=True)
    person = UnicodeAttribute(range_key=True)


class UseRow(Row):
    ask = UnicodeAttribute(hash_key=True)
    n = NumberAttribute(range_key=True)


class DynamoAsks:
    """Implements ``domain.store.Asks``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(AskRow, ASKS)

    def put(self, ask: Ask) -> None:
        put_new(
            self._rows(id=ask.id, created=timestamp(ask.created_at), doc=to_document(ask)),
            self._rows.id.does_not_exist(),
            AlreadyExists("this ask exists already", ask=ask.id),
            lambda: self._row(ask.id),
        )

    def get(self, ask_id: AskId) -> Ask:
        ask = from_document(Ask, self._row(ask_id).doc)
        return matching(ask, holds=ask.id == ask_id, store=ASKS)

    def since(self, created_after: datetime) -> Sequence[Ask]:
        rows = self._rows
        with reaching(ASKS):
            # The index has milliseconds, cut off: what it finds beside the moment itself is sorted out below.
            recent = rows.by_time.query(_LINE, rows.created >= timestamp(created_after), limit=MAX_ROWS)
            ids = [row.id for row in recent]
        found = (self.get(AskId(ask_id)) for ask_id in ids)
        return sorted(
            (ask for ask in found if ask.created_at >= created_after), key=lambda ask: (ask.created_at, ask.id)
        )

    def _row(self, ask_id: AskId) -> AskRow:
        return one(self._rows, ask_id, missing="there is no such ask")


class DynamoAnswers:
    """Implements ``domain.store.Answers``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(AnswerRow, ANSWERS)

    def put(self, answer: Answer) -> None:
        put_new(
            self._rows(ask=answer.ask_id, person=answer.person, doc=to_document(answer)),
            self._rows.person.does_not_exist(),
            AlreadyDecided("this person has answered already", ask=answer.ask_id),
            lambda: one(self._rows, answer.ask_id, answer.person, missing="there is no such answer"),
        )

    def of_ask(self, ask_id: AskId) -> Sequence[Answer]:
        found = [(row, from_document(Answer, row.doc)) for row in under(self._rows, ask_id)]
        return [
            matching(answer, holds=(answer.ask_id, answer.person) == (row.ask, row.person), store=ANSWERS)
            for row, answer in found
        ]


class DynamoUses:
    """Implements ``domain.store.Uses``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(UseRow, USES)

    def put(self, use: Use) -> None:
        put_new(
            self._rows(ask=use.ask_id, n=use.n, doc=to_document(use)),
            self._rows.n.does_not_exist(),
            AlreadyUsed("the approval is used or withdrawn already", ask=use.ask_id),
            lambda: one(self._rows, use.ask_id, use.n, missing="there is no such use"),
        )

    def of_ask(self, ask_id: AskId) -> Sequence[Use]:
        found = [(row, from_document(Use, row.doc)) for row in under(self._rows, ask_id)]
        return [matching(use, holds=(use.ask_id, use.n) == (row.ask, row.n), store=USES) for row, use in found]
