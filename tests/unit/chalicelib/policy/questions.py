"""Questions for policy tests: a chain of one actor, and a target, that a test changes where it matters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Chain, Hop, HopKind
from chalicelib.domain.identifiers import HopId, Txn
from chalicelib.domain.identity import Assurance, Evidence, Identity
from chalicelib.domain.policy import PolicyQuestion
from chalicelib.domain.target import Principal, Protocol, Target

MONDAY_NINE: Final = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
TEXT: Final[Mapping[str, Json]] = {
    "statement": "SELECT",
    "tables": ["public.customers"],
    "columns": ["public.customers.id"],
    "functions": [],
    "has_where": True,
    "reads_masked": False,
    "masked_outside_output": False,
}


LINE: Final[Mapping[str, Json]] = {
    "command": "cat /var/log/syslog",
    "program": "cat",
    "arguments": ["/var/log/syslog"],
    "terminal": False,
}
_FITTING: Final[Mapping[str, Mapping[str, Json]]] = {
    "session": {"duration_s": 600},
    "sql": TEXT,
    "ssh": LINE,
    "chain": {"what": "hop"},
}


def hop(
    *,
    subject: str = "9001:700100200",
    teams: tuple[str, ...] = ("orders-pipeline",),
    assurance: Assurance = Assurance.ATTESTED,
    attributes: tuple[tuple[str, str], ...] = (("ref", "refs/heads/main"),),
    accountable: tuple[str, ...] = ("gh:actor_id:1001",),
    depth: int = 0,
) -> Hop:
    actor = Identity(issuer="https://issuer.example", subject=subject, name="acme/orders deploy")
    origin = Identity(issuer="https://issuer.example", subject="9001:700100200", name="acme/orders deploy")
    return Hop(
        txn=Txn("01jbn0000000000000000000aa"),
        id=HopId(f"hop_{depth}"),
        depth=depth,
        kind=HopKind.ORIGIN if depth == 0 else HopKind.DELEGATE,
        parent=None if depth == 0 else HopId(f"hop_{depth - 1}"),
        parent_sha256="",
        originator=origin,
        actor=actor,
        evidence=Evidence(
            kind="oidc", token_id="t", claims_sha256="0" * 64, assurance=assurance, attributes=attributes
        ),
        accountable=accountable,
        teams=teams,
        scope=("*",),
        key_thumbprint="",
        target="",
        principal="",
        serial="",
        issued_at=MONDAY_NINE,
        expires_at=MONDAY_NINE + timedelta(hours=1),
    )


def target(*, environment: str = "prod", tags: tuple[tuple[str, str], ...] = (("team", "orders"),)) -> Target:
    return Target(
        name="orders-prod",
        protocol=Protocol.POSTGRES,
        environment=environment,
        description="orders",
        host="127.0.0.1",
        port=5432,
        database="orders",
        principals=(Principal(name="orders_app", credential="a/b"),),
        default_principal="orders_app",
        ca_pem="",
        plaintext=True,
        search_path=("public",),
        tags=tags,
        max_session_s=3600,
        max_connections=4,
        hold_budget_s=300,
        durable=False,
    )


def ask(
    action: str = "sql:read",
    *,
    met: frozenset[str] = frozenset(),
    context: Mapping[str, Json] | None = None,
    chain: Chain | None = None,
    on: Target | None = None,
    now: datetime = MONDAY_NINE,
) -> PolicyQuestion:
    """A question whose context fits ``action``; ``context`` adds to it or replaces. ``chain:...`` and
    ``evidence:...`` are asked about the service, whatever ``on`` says."""
    group = action.partition(":")[0]
    fitting = _FITTING.get("chain" if group == "evidence" else group, TEXT)
    service = group in ("chain", "evidence")
    return PolicyQuestion(
        chain=chain if chain is not None else Chain(hops=(hop(),)),
        target=None if service else on or target(),
        principal="" if service else "orders_app",
        action=action,
        context={**fitting, **(context or {})},
        trigger_known=True,
        now=now,
        met=met,
    )
