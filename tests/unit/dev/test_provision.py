"""The declared tables are those that the stores read and write."""

from __future__ import annotations

from chalicelib.domain.archived_item import TABLE_KEYS
from chalicelib.store.activations import ACTIVATIONS
from chalicelib.store.approvals import ANSWERS, ASKS, BY_TIME, USES
from chalicelib.store.beats import BEATS
from chalicelib.store.chains import CHAINS
from chalicelib.store.connections import CONNECTIONS, OF_BOOT, UNSEALED
from chalicelib.store.once import ONCE
from chalicelib.store.revocations import REVOCATIONS
from chalicelib.store.sessions import BY_DAY, OF_TXN, SESSIONS
from dev.provision import declared_tables


def test_what_is_declared_is_what_the_stores_name() -> None:
    """Terraform and the stack make tables of one file: a name that the code alone has would be a table of nobody."""
    tables = declared_tables()
    assert set(tables) == {CHAINS, SESSIONS, CONNECTIONS, BEATS, ASKS, ANSWERS, USES, REVOCATIONS, ONCE, ACTIVATIONS}
    assert {name: set(table.indexes) for name, table in tables.items() if table.indexes} == {
        SESSIONS: {OF_TXN, BY_DAY},
        CONNECTIONS: {UNSEALED, OF_BOOT},
        ASKS: {BY_TIME},
    }


def test_every_change_of_evidence_is_streamed_and_no_evidence_expires() -> None:
    """A table without its stream is one whose rows somebody with rights could rewrite unseen."""
    tables = declared_tables()
    assert {name for name, table in tables.items() if table.streamed} == set(TABLE_KEYS)
    assert {name for name, table in tables.items() if table.expires} == {ONCE, BEATS}
    for name, key in TABLE_KEYS.items():
        assert tuple(attribute for attribute, _ in tables[name].key) == key
