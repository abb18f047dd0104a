"""The Ask of a held operation: the question that an approver is shown, and what binds their answer to the exact bytes.

The exact bytes, the bind values and the salt stay in this process; the question carries a commitment to them, and its
digest covers every field, so that an answer to it is an answer to nothing else. Pure, but for the salt.
Source: architecture, "Holding", step 1.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final

from broker.admission import Admission
from chalicelib.config.bundle import Bundle
from chalicelib.domain.ask import Ask, Question, Stage
from chalicelib.domain.identifiers import ConnectionId, new_ask_id
from chalicelib.domain.operation import Hold, Operation
from chalicelib.services.access import chain_lines, excluded_people, trigger_known

# A card shows what is asked; a shell has no line of its own, and no exec has its action.
_NO_TEXT: Final = {"ssh:shell": "the account's shell: what it shows is recorded, what is typed into it is not judged"}
_EMPTY: Final = "an empty line"
HOLD_S: Final = 600  # architecture, "Holding": past 10 minutes nobody remembers what they were asked
_SALT_BYTES: Final = 32


def make_ask(
    *,
    admission: Admission,
    connection_id: ConnectionId,
    op: Operation,
    verdict: Hold,
    state: tuple[tuple[str, str], ...],
    bundle: Bundle,
    now: datetime,
) -> Ask:
    """Return the Ask of a held operation, with a commitment to its exact bytes and binds under a new salt.

    ``state`` is what changes the meaning of the text; an engine names all of it (database, search path, role).
    """
    target, chain = admission.target, admission.chain
    action = ", ".join(sorted({act.action for act in op.acts}))
    question = Question(
        stage=Stage.OPERATION,
        session_id=admission.session.id,
        connection_id=connection_id,
        operation_id=op.id,
        txn=admission.session.txn,
        chain=chain_lines(bundle, chain),
        leaf_hop_sha256=chain.leaf.sha256(),
        target=target.name,
        principal=admission.principal.name,
        action=action,
        text=op.text or _NO_TEXT.get(action, _EMPTY),
        binds=op.shown_binds,
        literals=tuple(f"{literal.kind}, {literal.length} characters" for literal in op.literals),
        state=state,
        commitment=commitment(secrets.token_bytes(_SALT_BYTES), op),
        reason=admission.session.request.reason,
        duration_s=0,  # it runs once, now; how long the ask stands is on the Ask
        rules=verdict.ruling.rules,
        needs=verdict.needs,
        trigger_known=trigger_known(bundle, chain),
        configuration_serial=verdict.ruling.configuration_serial,
        policy_digest=verdict.ruling.policy_digest,
    )
    expires_at = min(
        now + timedelta(seconds=min(HOLD_S, target.hold_budget_s)), admission.grant.expires_at, chain.leaf.expires_at
    )
    return Ask(
        id=new_ask_id(now),
        question=question,
        digest=question.digest(),
        excluded=excluded_people(bundle, chain),
        created_at=now,
        expires_at=expires_at,
    )


def commitment(salt: bytes, op: Operation) -> str:
    """Return SHA-256 over ``salt``, the exact bytes and every bind, each with its length, so that no two different
    operations have the same input; a null bind has no length, and so differs from an empty one. Pure."""
    hashed = hashlib.sha256(salt)
    hashed.update(len(op.exact).to_bytes(8, "big") + op.exact + len(op.binds).to_bytes(8, "big"))
    for bind in op.binds:
        hashed.update(b"\x00" if bind is None else b"\x01" + len(bind).to_bytes(8, "big") + bind)
    return hashed.hexdigest()
