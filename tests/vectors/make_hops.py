"""Prints ``tests/vectors/hops.json``: ``python -m tests.vectors.make_hops > tests/vectors/hops.json``.

The vectors pin what a hop hashes (ADR 0003). They are made once; a run that prints other hashes has found a change that
would break every chain ever signed, which is a new hop version and never a new vector file.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import timedelta

from chalicelib.domain.chain import HOP_VERSION, Hop
from chalicelib.domain.identifiers import HopId, Txn
from tests.fakes import samples


def vectors(version: int = HOP_VERSION) -> dict[str, Hop]:
    """Return a chain of three hops of one version with fixed ids: nothing random, a name beyond ASCII, microseconds to
    cut off."""
    txn = Txn("01k9vq3v5000000000000000aa")
    root = samples.origin(txn)
    root = dataclasses.replace(
        root,
        id=HopId("hop_01k9vq3v5000000000000000ab"),
        actor=dataclasses.replace(root.actor, name="açme/orders \u2028 deploy"),
        issued_at=root.issued_at + timedelta(microseconds=123_987),
        key_thumbprint="NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        version=version,
        max_depth=root.max_depth if version >= 2 else 0,
    )
    if version >= 4:
        root = dataclasses.replace(root, evidence=dataclasses.replace(root.evidence, kept_sha256="ef" * 32))
    delegate = dataclasses.replace(
        samples.child(root),
        id=HopId("hop_01k9vq3v5000000000000000ac"),
        scope=("orders-prod/app#sql:read",) if version >= 2 else (),
        ticket="tkt_01k9vq3v5000000000000000ae" if version >= 2 else "",
        rules=("pipeline-delegates",) if version >= 3 else (),
    )
    target = dataclasses.replace(samples.target_hop(delegate), id=HopId("hop_01k9vq3v5000000000000000ad"), rules=())
    return {"origin": root, "delegate": delegate, "target": target}


if __name__ == "__main__":
    told = {
        "command": "python -m tests.vectors.make_hops > tests/vectors/hops.json",
        "hops": [
            {"kind": kind, "hashed": hop.hashed(), "sha256": hop.sha256()}
            for version in (1, 2, 3, HOP_VERSION)
            for kind, hop in vectors(version).items()
        ],
    }
    sys.stdout.write(json.dumps(told, indent=1, ensure_ascii=True) + "\n")
