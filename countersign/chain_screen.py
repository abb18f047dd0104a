"""A chain as a tree of lines: each hop with who vouches for it, how strongly, what it may do, until when.

Text of others (names, issuers, scopes) passes ``safe_line``; nothing here decides. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.identity import Assurance
from countersign.chain_proof import HopProof, ShownHop
from countersign.printable import counted, moment, safe_line

Paint = Callable[..., str]


def tree(shown: Sequence[ShownHop], paint: Paint) -> Iterator[str]:
    """Give the lines of a chain, each child under its parent; a hop whose parent is not shown stands at the left."""
    ids = {one.hop.id for one in shown}
    children: dict[str, list[ShownHop]] = {}
    for one in shown:
        parent = one.hop.parent if one.hop.parent in ids else None
        children.setdefault(parent or "", []).append(one)
    todo = [(one, "", "") for one in reversed(children.get("", ()))]
    done: set[str] = set()
    while todo:
        one, first, rest = todo.pop()
        if one.hop.id in done:  # a loop among hops that do not verify must not be one here
            continue
        done.add(one.hop.id)
        below = children.get(one.hop.id, [])
        yield first + _who(one, paint)
        bar = "│  " if below else "   "
        yield f"{rest}{bar}{paint(_what(one.hop), 'dim')}"
        for number, child in reversed(list(enumerate(below))):
            last = number == len(below) - 1
            todo.append((child, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}"))


def proof_lines(proofs: Sequence[HopProof], paint: Paint) -> Iterator[str]:
    """Give what does not hold, hop by hop; one line where everything does."""
    wrong = [proof for proof in proofs if proof.faults]
    for proof in wrong:
        yield f"{paint('BROKEN', 'red', 'bold')}  {safe_line(proof.shown.hop.id, 40)}  {_name(proof.shown.hop)}"
        for fault in proof.faults:
            yield f"        {safe_line(fault)}"
    if not wrong:
        held = "every hash, signature and link holds, and none has more than its parent"
        yield f"{paint('whole', 'green')}   {counted(len(proofs), 'hop')}: {held}"


def key_lines(proofs: Sequence[HopProof]) -> Iterator[str]:
    """Give the keys that signed, with how many hops each."""
    used: dict[tuple[str, str], int] = {}
    for proof in proofs:
        if proof.key is not None:
            named = (proof.key.purpose, proof.key.thumbprint)
            used[named] = used.get(named, 0) + 1
    for (purpose, thumbprint), number in sorted(used.items()):
        yield f"key     {purpose} {thumbprint}  signed {counted(number, 'hop')}"


def hop_json(proof: HopProof) -> Mapping[str, object]:
    """Return one hop's proof for programs."""
    return {
        "id": proof.shown.hop.id,
        "actor": proof.shown.hop.actor.key,
        "key": None if proof.key is None else proof.key.thumbprint,
        "faults": list(proof.faults),
    }


def _name(hop: Hop) -> str:
    if hop.kind is HopKind.TARGET:
        return safe_line(f"{hop.target} as {hop.principal}", 80)
    return safe_line(hop.actor.name or hop.actor.subject, 80)


def _who(one: ShownHop, paint: Paint) -> str:
    hop = one.hop
    revoked = f"  {paint('REVOKED', 'red', 'bold')}" if one.revoked else ""
    return f"{paint(_name(hop), 'bold')}  {_vouching(hop)}  {safe_line(hop.id, 40)}{revoked}"


def _vouching(hop: Hop) -> str:
    if hop.kind is HopKind.TARGET:
        return safe_line(f"the broker's connection, serial {hop.serial}", 80)
    match hop.evidence.assurance:
        case Assurance.ATTESTED:
            return safe_line(f"attested by {hop.actor.issuer}", 120)
        case Assurance.VOUCHED:
            return safe_line(f"vouched: its parent named its key {hop.key_thumbprint[:12]}…", 80)
        case Assurance.BEARER:
            return "bearer: whoever showed the secret"


def _what(hop: Hop) -> str:
    ends = f"until {moment(timestamp(hop.expires_at))}"
    if hop.kind is HopKind.TARGET:
        return ends
    depth = "" if hop.version < 2 else f" · depth {hop.depth} of {hop.max_depth}"
    return f"{safe_line(' '.join(hop.scope), 200)} · {ends}{depth}"
