"""`countersign restore-epoch --by NAME --why TEXT`: after a restore of the tables, makes all of before void.

For operators, with their own AWS rights, while the service takes no requests: see the runbook. Puts again, from the
locked archive, the revocations and activations that the restore took back, then raises the store's epoch. May be
repeated.
"""

from __future__ import annotations

import argparse
from functools import partial

from countersign.commands.asking import Invocation
from countersign.evidence_source import open_deployment
from countersign.failures import Exit
from countersign.printable import counted, safe_line


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", required=True, metavar="NAME", help="who does it; it is in the signed activation")
    parser.add_argument("--why", required=True, metavar="TEXT", help="which restore; sessions that end say it")


def restore_epoch(invocation: Invocation) -> int:
    """Return 0, or 65 where a part of the archive could not be read: a revocation may be missing.

    Raises Failure, Conflict, ProofInvalid, NotFound, StoreUnavailable.
    """
    from chalicelib.domain.canonical import timestamp
    from chalicelib.domain.signature import KeyPurpose
    from chalicelib.identity.jws import verify_activation
    from chalicelib.services.raise_epoch import RaiseEpoch
    from chalicelib.services.verify import EvidenceSource, trusted_keys

    options, output = invocation.options, invocation.output
    stores = open_deployment(invocation.settings.inherited)
    raise_epoch = RaiseEpoch(
        activations=stores.activations,
        revocations=stores.revocations,
        objects=stores.objects,
        signer=stores.signer(KeyPurpose.ACTIVATION.value),
        verify=partial(verify_activation, keys=trusted_keys(EvidenceSource(stores=stores), None).keys),
        clock=invocation.clock,
    )
    raised = raise_epoch(by=options.by, why=options.why)
    output.result(
        {
            "epoch": timestamp(raised.epoch_at),
            "serial": raised.serial,
            "activations": raised.activations,
            "revocations": raised.revocations,
            "unreadable": list(raised.unreadable),
        }
    )
    output.line(f"the store's epoch is {timestamp(raised.epoch_at)}: what was asked for before is void")
    output.line(
        f"  put again: {counted(raised.revocations, 'revocation')}, {counted(raised.activations, 'activation')}"
    )
    output.line("  brokers and functions know it within 10 seconds; open sessions end within a few")
    for key in raised.unreadable:
        output.line(f"  {output.paint('unreadable', 'red')}  {safe_line(key)}: what it held may be missing")
    return Exit.INVALID if raised.unreadable else Exit.DONE
