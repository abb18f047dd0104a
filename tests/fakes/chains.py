"""The founding story's chain, signed by real keys, as GET /v1/chains and GET /v1/keys show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.identifiers import Txn, new_hop_id
from chalicelib.domain.identity import Assurance, Identity
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import hop_purpose, sign_hop
from tests.fakes.clock import START
from tests.fakes.samples import origin
from tests.fakes.signer import MemoryKeys


def story(keys: MemoryKeys, txn: str) -> list[Hop]:
    """Return four signed hops: the pipeline, its container, the tool in it, and the login that the tool used."""
    root = sign_hop(
        keys.signer("token"),
        replace(origin(Txn(txn)), scope=("*",), max_depth=3, expires_at=START + timedelta(hours=8)),
    )
    container = child(keys, root, "deploy-svc", Assurance.VOUCHED, scope=("db-prod", "orders-prod"))
    tool = child(keys, container, "schema-tool", Assurance.ATTESTED, scope=("db-prod/deploy#ssh:exec",), max_depth=2)
    target = child(
        keys,
        tool,
        "schema-tool",
        Assurance.ATTESTED,
        kind=HopKind.TARGET,
        target="db-prod",
        principal="deploy",
        scope=(),
    )
    return [root, container, tool, target]


def child(keys: MemoryKeys, parent: Hop, name: str, assurance: Assurance, **fields: Any) -> Hop:
    """Return a signed child of ``parent``; ``fields`` may make it one that no service of ours would sign."""
    kind = fields.get("kind", HopKind.DELEGATE)
    hop = replace(
        parent,
        id=new_hop_id(START),
        depth=parent.depth + 1,
        parent=parent.id,
        parent_sha256=parent.sha256(),
        actor=Identity(issuer="https://countersign.example.com", subject=f"key:{name}", name=name),
        evidence=replace(parent.evidence, assurance=assurance),
        expires_at=parent.expires_at - timedelta(minutes=5),
        key_thumbprint="k" * 43,
        serial="17" if kind is HopKind.TARGET else "",
        signature="",
    )
    hop = replace(hop, **({"kind": kind} | fields))
    return sign_hop(keys.signer(hop_purpose(hop).value), hop)


def shown(hop: Hop, *, revoked: bool = False) -> dict[str, Any]:
    """Return a hop as the service shows it."""
    hashed = cast("dict[str, Any]", json.loads(json.dumps(hop.hashed())))
    beside = ("id", "depth", "kind", "actor", "scope", "max_depth", "teams", "key_thumbprint", "ticket")
    return {
        **{name: hashed[name] for name in (*beside, "target", "principal", "serial")},
        "parent": hop.parent or "",
        "assurance": hop.evidence.assurance.value,
        "issued_at": timestamp(hop.issued_at),
        "expires_at": timestamp(hop.expires_at),
        "revoked": revoked,
        "sha256": hop.sha256(),
        "signature": hop.signature,
        "hashed": hashed,
    }


def chain_answer(hops: list[Hop]) -> dict[str, object]:
    root = hops[0].originator
    originator = {"iss": root.issuer, "sub": root.subject, "name": root.name}
    return {"txn": hops[0].txn, "originator": originator, "hops": [shown(hop) for hop in hops]}


def keys_answer(keys: MemoryKeys) -> dict[str, object]:
    """Return every purpose's key, as GET /v1/keys shows them."""
    return {
        purpose.value: {"keys": [dict(jwk) for jwk in keys.public_keys(purpose.value).values()]}
        for purpose in KeyPurpose
    }


def changed_hop(told: Mapping[str, Any], number: int, **changes: Any) -> dict[str, Any]:
    """Return the answer with other values in one hop's ``hashed``, and nothing else made to fit."""
    copied = cast("dict[str, Any]", json.loads(json.dumps(told)))
    copied["hops"][number]["hashed"] |= changes
    return copied
