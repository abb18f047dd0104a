"""`countersign keys show|begin|rotate`: the history of the signing keys, in the deployment.

For operators, with their own AWS rights. `begin` puts the first entry of every purpose that has none; `rotate PURPOSE
--to KEY` lets a key that infrastructure made sign from now on, introduced by the one before. Both may be repeated. An
auditor's file of fingerprints goes on to hold: a later key is accepted through the history.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from countersign.commands.asking import Invocation
from countersign.evidence_source import open_deployment
from countersign.failures import Exit, Failure
from countersign.printable import safe_line

if TYPE_CHECKING:
    from chalicelib.domain.key_history import KeyEntry
    from chalicelib.services.rotate_key import RotateKey


def add_show(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show and check the history of every purpose's signing keys."


def add_begin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", required=True, metavar="NAME", help="who does it; it is in the entries")


def add_rotate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("purpose", metavar="PURPOSE", help="token, answer, record, ...")
    parser.add_argument("--to", required=True, metavar="KEY", help="the new key's id: a P-256 signing key in KMS")
    parser.add_argument("--by", required=True, metavar="NAME", help="who does it; it is in the entry")


def show(invocation: Invocation) -> int:
    """Return 0, or 65 where the history does not hold. Raises Failure, StoreUnavailable."""
    from chalicelib.services.key_history import read_history

    output = invocation.output
    history = read_history(open_deployment(invocation.settings.inherited).objects)
    found = [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in history.findings]
    told = {purpose: [_told(entry) for entry in entries] for purpose, entries in history.entries.items() if entries}
    output.result({"keys": told, "findings": found})
    for purpose, entries in told.items():
        output.line(purpose)
        for entry in entries:
            made = f"{entry['made_at']} by {safe_line(str(entry['by']))}"
            output.line(f"  {entry['number']}  {entry['thumbprint']}  {made}")
    if not told:
        output.line("no purpose has a history: countersign keys begin --by NAME")
    for one in history.findings:
        output.line(f"  {output.paint(one.kind.value, 'red')}  {safe_line(str(one))}")
    return Exit.INVALID if history.findings else Exit.DONE


def begin(invocation: Invocation) -> int:
    """Return 0. Raises Failure, Conflict, StoreUnavailable."""
    from chalicelib.domain.key_history import PURPOSES

    service = _service(invocation)
    entries = [service.begin(purpose) for purpose in PURPOSES]
    invocation.output.result({"keys": {entry.purpose.value: [_told(entry)] for entry in entries}})
    for entry in entries:
        invocation.output.line(f"{entry.purpose.value:<12}{entry.number}  {_told(entry)['thumbprint']}")
    return Exit.DONE


def rotate(invocation: Invocation) -> int:
    """Return 0. Raises Failure, Conflict, NotFound, BadRequest, StoreUnavailable."""
    from chalicelib.domain.key_history import PURPOSES

    options, output = invocation.options, invocation.output
    purpose = next((one for one in PURPOSES if one.value == options.purpose), None)
    if purpose is None:
        names = ", ".join(sorted(one.value for one in PURPOSES))
        raise Failure(Exit.USAGE, "no key with a history signs for that", hint=f"Purposes: {names}.")
    entry = _service(invocation)(purpose, options.to)
    output.result({"purpose": purpose.value, **_told(entry)})
    output.line(f"{purpose.value}: key {entry.number} signs from now on, {_told(entry)['thumbprint']}")
    output.line("  every process knows it within 5 minutes; keep the key before until what it signed has ended")
    return Exit.DONE


def _service(invocation: Invocation) -> RotateKey:
    from chalicelib.services.rotate_key import RotateKey
    from chalicelib.store.keys import KmsKeyRing

    stores = open_deployment(invocation.settings.inherited)
    ring = KmsKeyRing(stores.clients, stores.keys)
    return RotateKey(objects=stores.objects, ring=ring, clock=invocation.clock, by=invocation.options.by)


def _told(entry: KeyEntry) -> dict[str, str | int]:
    from chalicelib.domain.canonical import timestamp
    from chalicelib.services.key_history import entry_thumbprint

    return {
        "number": entry.number,
        "thumbprint": entry_thumbprint(entry),
        "kid": entry.jwk["kid"],
        "made_at": timestamp(entry.made_at),
        "by": entry.by,
    }
