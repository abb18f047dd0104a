"""What all tables share: names, timeouts, the one conditional put, and which error means what.

Rules: every read is a consistent read by key; every first write is conditional on the key being free; an answer that
could not be had is StoreUnavailable. Sources: DynamoDB's developer guide ("Condition expressions", "Error handling").
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.exceptions import PutError, PynamoDBException, UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model

from chalicelib.domain.errors import AccessError, Conflict, NotFound, StoreUnavailable
from chalicelib.settings import StoreSettings
from chalicelib.store.dates import ServiceDates
from chalicelib.store.documents import from_document, revised_document

# DynamoDB and KMS answer in milliseconds: seconds without an answer are an outage, and the caller (a Lambda that has to
# answer Slack within 3 s, a broker with a client in flight) must refuse while somebody still listens. Two retries ride
# out a dropped connection or a throttled partition without turning an outage into a pile of waiting calls.
CONNECT_TIMEOUT_S: Final = 2
READ_TIMEOUT_S: Final = 3
RETRIES: Final = 2
POOL: Final = 16  # the broker's store threads share one client; more than its threads would never be used

# A chain, an ask or a session has tens of rows. Past this many somebody is making rows on purpose, and an unbounded
# read would let them choose how much memory and time each of our reads takes.
MAX_ROWS: Final = 10_000
MAX_RACES: Final = 8  # lost races on one session's row before giving up: each loss means that another writer got on

_BATCH: Final = 100  # BatchGetItem's own limit
_MAX_ROUNDS: Final = 4  # BatchGetItem may leave keys unread when throttled; past these it is an outage
_MAX_PAUSE_S: Final = 0.1  # before the second round, and more before each further one: 0.6 s in all at most
_PAUSE: Final = threading.Event()  # never set: what waits is one thread's own
_CONDITION_FAILED: Final = "ConditionalCheckFailedException"

T = TypeVar("T")
M = TypeVar("M", bound=Model)


class Row(Model):
    """A row's one common attribute."""

    doc = UnicodeAttribute()


class RevisedRow(Row):
    """A row that changes: ``revision`` grows by one with each change, which is conditional on the one that was read."""

    revision = NumberAttribute(default=1)


class DatedConnection(Connection):
    """pynamodb's connection, whose client (made with the first call, and again without credentials) is watched."""

    def __init__(self, dates: ServiceDates, region: str) -> None:
        super().__init__(
            region=region,
            connect_timeout_seconds=CONNECT_TIMEOUT_S,
            read_timeout_seconds=READ_TIMEOUT_S,
            max_retry_attempts=RETRIES,
            max_pool_connections=POOL,
        )
        self._dates = dates
        self._watched: object = None

    @property
    def client(self) -> Any:
        client = super().client
        if client is not self._watched:
            self._dates.watch(client)
            self._watched = client
        return client


class Tables:
    """Binds shapes of rows to the tables of one deployment. Makes no call: the client is made with the first one."""

    def __init__(self, settings: StoreSettings, dates: ServiceDates) -> None:
        self._settings = settings
        self._connection = DatedConnection(dates, settings.region)

    def bind(self, shape: type[M], name: str) -> type[M]:
        """Return ``shape`` bound to the table ``PREFIX-name``: a class for each, since pynamodb keeps the name there.

        All of them share one client. pynamodb would make one for each class, and each costs a Lambda's cold start
        60 ms and more, and the broker a pool of connections.
        """
        meta = type(
            "Meta",
            (),
            {
                "table_name": f"{self._settings.prefix}-{name}",
                "region": self._settings.region,
            },
        )
        make = cast(Callable[..., type[M]], type(shape))
        bound = make(shape.__name__, (shape,), {"Meta": meta, "__module__": shape.__module__})
        found = bound._get_connection()
        self._connection.add_meta_table(found.get_meta_table())
        found.connection = self._connection
        return bound

    @property
    def connection(self) -> Connection:
        """The shared client, for transactions."""
        return self._connection


@contextmanager
def reaching(store: str) -> Iterator[None]:
    """Turn what the client raises into StoreUnavailable. The detail names the store and the error's code, no key.

    KeyError is what pynamodb raises on an answer that lacks a part: something other than DynamoDB answered.
    """
    try:
        yield
    except (PynamoDBException, ClientError, BotoCoreError, ResponseParserError, KeyError) as error:
        raise StoreUnavailable("a store could not be reached", store=store, error=_code(error)) from error


def put_new(row: Row, free: Condition, taken: AccessError, read_again: Callable[[], Row]) -> None:
    """Put ``row`` where ``free`` holds, else raise ``taken``.

    A put whose answer was lost is repeated by the client and then meets itself: where the client did repeat, and the
    row there is this very one, the put was ours and has succeeded. Ids, moments and signatures make two writers' rows
    differ, so no second writer is let through by this.
    """
    with reaching(row.Meta.table_name):
        try:
            row.save(condition=free)
        except PutError as error:
            if error.cause_response_code != _CONDITION_FAILED:
                raise
            if _repeated(error) and read_again().doc == row.doc:
                return
            raise taken from None


def one(shape: type[M], hash_key: str, range_key: str | int | None = None, *, missing: str) -> M:
    """Return the row at this key. Raises NotFound with the sentence ``missing``."""
    with reaching(shape.Meta.table_name):
        try:
            return shape.get(hash_key, range_key, consistent_read=True)
        except shape.DoesNotExist:
            raise NotFound(missing) from None


def documents(shape: type[M], ids: Sequence[str]) -> Mapping[str, str]:
    """Return id to document of those rows of a table that are there, read consistently, in as few calls as there can
    be. Raises StoreUnavailable where keys stay unread: one of them may be the one that matters. (pynamodb's own
    ``batch_get`` asks for them again at once, and for ever.)"""
    found: dict[str, str] = {}
    connection, table = shape._get_connection(), shape.Meta.table_name
    for start in range(0, len(ids), _BATCH):
        left: Any = [{"id": {"S": name}} for name in ids[start : start + _BATCH]]
        for turn in range(_MAX_ROUNDS):
            if turn:
                _PAUSE.wait(random.uniform(0, _MAX_PAUSE_S * turn))  # noqa: S311 - spreads readers, protects nothing
            with reaching(table):
                answer = connection.batch_get_item(left, consistent_read=True)
                items = answer["Responses"][table]  # there even where nothing was found: its absence is no answer
                found.update((item["id"]["S"], item["doc"]["S"]) for item in items)
            left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
            if not left:
                break
        if left:
            raise StoreUnavailable("a store could not be reached", store=table, error="unprocessed keys")
    return found


def under(shape: type[M], hash_key: str) -> list[M]:
    """Return the rows of one partition in the order of their range keys. Raises StoreUnavailable past MAX_ROWS."""
    with reaching(shape.Meta.table_name):
        rows = list(shape.query(hash_key, consistent_read=True, limit=MAX_ROWS + 1))
    if len(rows) > MAX_ROWS:
        raise StoreUnavailable("a store holds more than can be read", store=shape.Meta.table_name)
    return rows


def revise(kind: type[T], read: Callable[[], RevisedRow], change: Callable[[T], T], also: Sequence[Action] = ()) -> T:
    """Replace the value in the row that ``read`` returns by ``change`` of it, and return the new one.

    ``change`` may raise to refuse, and may return the value itself for no change. It is called again on what another
    writer left, after a lost race. ``also``: what becomes of attributes beside the value, with any change. Raises
    Conflict after ``MAX_RACES`` of them.
    """
    for _ in range(MAX_RACES):
        row = read()
        value = from_document(kind, row.doc)
        changed = change(value)
        if changed is value:
            return value
        shape, document = type(row), revised_document(row.doc, value, changed)
        with reaching(row.Meta.table_name):
            try:
                row.update(
                    actions=[shape.doc.set(document), shape.revision.set(shape.revision + 1), *also],
                    condition=shape.revision == row.revision,
                )
            except UpdateError as error:
                if error.cause_response_code != _CONDITION_FAILED:
                    raise
                continue  # another writer, or our own lost answer: either way the row is read and judged again
        return changed
    raise Conflict("others keep changing this")


def matching(value: T, *, holds: bool, store: str) -> T:
    """Return ``value`` where it belongs to the key it was read from: a row copied under another key is nobody's."""
    if not holds:
        raise StoreUnavailable("a stored row is not the one that its key names", store=store)
    return value


def _repeated(error: PutError) -> bool:
    """Say whether the client sent this put more than once."""
    original: Any = error.cause.__cause__ if error.cause is not None else None
    if not isinstance(original, ClientError):
        return False
    return int(original.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0


def _code(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    code = getattr(error, "cause_response_code", None)
    return str(code) if code else type(error).__name__
