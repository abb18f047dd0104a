"""`countersign chain show TXN`, `chain verify TXN [--trust FILE]` and `chain token TXN`: who let whom in, whether it
holds, and what its first hop stands on.

`verify` recomputes everything here from what the service shows: hashes, signatures, links, narrowness. With
``--trust FILE`` only keys that the file lists count. Without it the keys are those that the service itself tells: the
chain is then whole by the service's own word, and that is said (UNANCHORED, exit code 78), since whoever answered could
have signed all of it. `token` reads the issuer's own token, once it has expired, and verifies it with the issuer's keys
as they were fetched. The exit codes are ``countersign.failures.Exit``.
"""

from __future__ import annotations

import argparse

from chalicelib.domain.identifiers import TXN
from countersign.chain_proof import HopProof, ShownHop, prove, shown_hops
from countersign.chain_screen import hop_json, key_lines, proof_lines, tree
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.printable import counted, safe_line
from countersign.signatures import keys_of
from countersign.trust import Trust, read_trust

_OLDER = "Is this command line older than the service? `pip install -U countersign`."


def add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("txn", metavar="TXN", help="the chain's id")
    parser.description = "Show the tree of hops, as the service tells it. `chain verify` proves it."


def add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("txn", metavar="TXN", help="the chain's id")
    parser.add_argument("--trust", default="", metavar="FILE", help="believe only keys whose thumbprints it lists")
    parser.epilog = "exit codes: 0 it holds, by trusted keys; 65 it does not; 78 it holds, by the service's own keys"


def add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("txn", metavar="TXN", help="the chain's id")
    parser.add_argument("--out", default="", metavar="FILE", help="write token and keys to a new file, yours alone")
    parser.description = "Verify the issuer's token that the chain began with. It can be read when it has expired."


def token(invocation: Invocation) -> int:
    """Return 0 where the issuer vouched for the first hop, 65 where the token does not show it. Raises Failure."""
    from countersign.issuer_token import opened_proof, write_private

    options, output = invocation.options, invocation.output
    body, root = opened_proof(invocation.service(), options.txn)
    if options.out:
        write_private(options.out, body)
    actor = root.actor
    told = {"txn": root.txn, "hop": root.id, "issuer": actor.issuer, "subject": actor.subject}
    output.result({**told, "file": options.out})
    who = safe_line(actor.name or actor.subject)
    output.line(f"{safe_line(actor.issuer)} itself signed who began {root.txn}: {who}")
    output.line(f"  hop {root.id} hashes the claims of that token; `chain verify` proves the hop")
    if options.out:
        output.line(f"  {safe_line(options.out)}: the token, and the issuer's keys as they were fetched")
    return Exit.DONE


def show(invocation: Invocation) -> int:
    """Print the tree. Raises Failure: 77 where it is not there or not the caller's to see."""
    body = _told(invocation, invocation.options.txn)
    shown, output = _shown(body), invocation.output
    output.result(body)
    _print_tree(invocation, shown)
    return Exit.DONE


def verify(invocation: Invocation) -> int:
    """Return 0, 65 or 78. Raises Failure."""
    options, output = invocation.options, invocation.output
    trust = read_trust(options.trust) if options.trust else None
    shown = _shown(_told(invocation, options.txn))
    try:
        keys = keys_of(invocation.service().public("/v1/keys").body)
    except ValueError as error:
        raise Failure(Exit.UNREACHABLE, f"the service's keys make no sense: {error}", hint=_OLDER) from error
    proofs = [_trusted(proof, trust) for proof in prove(shown, keys, options.txn)]
    broken = any(proof.faults for proof in proofs)
    verdict = "BROKEN" if broken else "UNANCHORED" if trust is None else "VERIFIED"
    output.result({"txn": options.txn, "verdict": verdict, "hops": [hop_json(proof) for proof in proofs]})
    _print_tree(invocation, shown)
    for line in (*proof_lines(proofs, output.paint), *key_lines(proofs)):
        output.line(line)
    output.line(_verdict_line(verdict, invocation))
    return {"BROKEN": Exit.INVALID, "UNANCHORED": Exit.UNANCHORED}.get(verdict, Exit.DONE)


def _verdict_line(verdict: str, invocation: Invocation) -> str:
    paint = invocation.output.paint
    match verdict:
        case "BROKEN":
            return f"{paint('BROKEN', 'red', 'bold')}: this is not the chain that was signed"
        case "UNANCHORED":
            said = "the keys are the service's own word; `--trust FILE` compares them with those you were given"
            return f"{paint('UNANCHORED', 'yellow', 'bold')}: {said}"
        case _:
            return f"{paint('VERIFIED', 'green', 'bold')}: by keys of {safe_line(invocation.options.trust)}"


def _trusted(proof: HopProof, trust: Trust | None) -> HopProof:
    """Return ``proof`` with a fault more where its key is not one that ``trust`` lists."""
    if trust is None or proof.key is None or trust.holds(proof.key.purpose, proof.key.thumbprint):
        return proof
    fault = f"it was signed by a {proof.key.purpose} key that the trust file does not list: {proof.key.thumbprint}"
    return HopProof(shown=proof.shown, key=proof.key, faults=(*proof.faults, fault))


def _told(invocation: Invocation, txn: str) -> dict[str, object]:
    if not TXN.match(txn):
        raise Failure(Exit.USAGE, "a chain's id looks like 01j9z3k4m5n6p7q8r9s0t1v2w3")
    service = invocation.service()
    return dict(service.get(service.address.url(f"/v1/chains/{txn}")).body)


def _shown(body: dict[str, object]) -> tuple[ShownHop, ...]:
    try:
        return shown_hops(body.get("hops"))
    except ValueError as error:
        raise Failure(Exit.UNREACHABLE, f"the service's answer makes no sense: {error}", hint=_OLDER) from error


def _print_tree(invocation: Invocation, shown: tuple[ShownHop, ...]) -> None:
    output, originator = invocation.output, shown[0].hop.originator
    who = f"{originator.name or originator.subject} ({originator.issuer})"
    output.line(f"chain {invocation.options.txn}  {counted(len(shown), 'hop')}, for {safe_line(who)}")
    for line in tree(shown, output.paint):
        output.line(line)
