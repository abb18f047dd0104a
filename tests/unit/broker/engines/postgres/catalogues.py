"""A small target as its catalogue tells it: customers with two masked columns, orders, views, functions."""

from __future__ import annotations

from typing import Final

from broker.engines.postgres.origins import Catalogue, Masked, Row, read_catalogue
from broker.engines.postgres.statement import Statement, Understood, understand
from chalicelib.domain.masking import ColumnName, MaskMode, MaskRule

EMAIL: Final = ColumnName(schema="public", table="customers", column="email")
CARD: Final = ColumnName(schema="public", table="customers", column="card_number")
RULES: Final = (
    MaskRule(name="email", mode=MaskMode.REDACT, targets=(), columns=(EMAIL,), detectors=(), patterns=()),
    MaskRule(name="card", mode=MaskMode.PARTIAL, targets=(), columns=(CARD,), detectors=(), patterns=()),
)
MASKED: Final = Masked.of(RULES, "orders-prod")

CUSTOMERS, ORDERS, V_CUSTOMERS, V_COUNT, PG_STATS, V_LOST = 20001, 20002, 20003, 20004, 12001, 20005
_RELATIONS: Final[list[Row]] = [
    [str(CUSTOMERS), "public", "customers", "r"],
    [str(ORDERS), "public", "orders", "r"],
    [str(V_CUSTOMERS), "public", "v_customers", "v"],
    [str(V_COUNT), "public", "v_count", "v"],
    [str(V_LOST), "public", "v_lost", "v"],
    [str(PG_STATS), "pg_catalog", "pg_stats", "v"],
    ["1260", "pg_catalog", "pg_authid", "r"],
    ["12002", "pg_catalog", "pg_settings", "v"],
    ["1259", "pg_catalog", "pg_class", "r"],
]
_ATTRIBUTES: Final[list[Row]] = [
    [str(CUSTOMERS), "public", "customers", str(place), name]
    for place, name in enumerate(("id", "name", "email", "card_number", "note"), 1)
]
_VIEWS: Final[list[Row]] = [
    [str(V_CUSTOMERS), "SELECT customers.id, lower(customers.email) AS low, customers.name FROM customers;"],
    [str(V_COUNT), "SELECT count(*) AS many, nextval('s') AS next FROM v_customers;"],
]


def words(text: str) -> list[str]:
    return text.split()


_CALM: Final = words(
    """
    lower upper count sum now to_json row_to_json string_agg split_part generate_series md5 coalesce_
    current_setting pg_table_is_visible query_to_xml ts_stat array_agg length
    """
)
_VOLATILE: Final = words(
    """
    random nextval set_config pg_read_file pg_notify pg_sleep pg_terminate_backend lo_from_bytea
    pg_advisory_unlock_all lo_export
    """
)
_FUNCTIONS: Final[list[Row]] = [
    *(["pg_catalog", name, "false", "true"] for name in _CALM),
    *(["pg_catalog", name, "true", "true"] for name in _VOLATILE),
    ["public", "writes", "true", "false"],
    ["public", "reads", "false", "false"],
    ["public", "similarity", "false", "true"],
    ["public", "length", "true", "false"],
]
_PATH: Final[list[Row]] = [["pg_catalog"], ["public"], ["pg_temp"]]
RESULTS: Final[list[list[Row]]] = [_RELATIONS, _ATTRIBUTES, _VIEWS, _FUNCTIONS, [["@@@"]], _PATH]


def catalogue(masked: Masked = MASKED) -> Catalogue:
    """Return the target's catalogue; with nothing masked no relation is known by its columns, as on a real target."""
    attributes = _ATTRIBUTES if masked.columns else []
    return read_catalogue([_RELATIONS, attributes, *RESULTS[2:]], masked)


def read(text: str) -> Understood:
    return understand(text, catalogue())


def one(text: str) -> Statement:
    """Return the only statement of ``text``, which must be understood."""
    understood = read(text)
    assert understood.refused == "", understood.refused
    (statement,) = understood.statements
    return statement


def acts(text: str) -> set[tuple[str, str]]:
    """Return (class, word) of every Act of ``text``, the class without its ``sql:``."""
    understood = read(text)
    assert understood.refused == "", understood.refused
    return {(act.action.removeprefix("sql:"), str(dict(act.context)["statement"])) for act in understood.acts}


def fact(text: str, name: str) -> object:
    """Return one fact of the first Act of ``text``."""
    return dict(read(text).acts[0].context)[name]
