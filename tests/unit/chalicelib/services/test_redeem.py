"""A ticket becomes a hop: whose it is, what the child gets, and every way of redeeming what is not one's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.errors import (
    AccessError,
    AlreadyInChain,
    BadRequest,
    GrantRevoked,
    KeyProofInvalid,
    OutOfScope,
    ProofInvalid,
    StoreUnavailable,
    TicketInvalid,
    TokenInvalid,
    TokenReplayed,
)
from chalicelib.domain.identity import Assurance
from chalicelib.identity.jws import sign_hop, verify_hop
from chalicelib.services.exchange import GRANT_TYPE, TICKET_TYPE
from tests.fakes.control_plane import FILES, PUBLIC_URL, TOOLS_ISSUER, ControlPlane
from tests.fakes.keys import Key

TOOL: dict[str, Any] = {"issuer": TOOLS_ISSUER, "claims": {"sub": "schema-tool"}}
CALLERS = 50


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


class Family:
    """A run with a key, and a ticket for a child."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.parent, self.child = Key(), Key()
        self.token = plane.token(key=self.parent)

    def ticket(self, redeemer: Key | Mapping[str, Any] | None = None, **body: Any) -> str:
        return self.plane.ticket(self.token, redeemer or self.child, by=self.parent, **body)


def redeem(
    plane: ControlPlane,
    ticket: str,
    key: Key | None,
    *,
    actor_token: str | None = None,
    scope: str | None = None,
    proof: str | None = None,
) -> dict[str, Any]:
    """Ask ``sign`` itself, as the API does; raise the refusal."""
    form = {"grant_type": GRANT_TYPE, "subject_token": ticket, "subject_token_type": TICKET_TYPE, "scope": scope}
    if actor_token is not None:
        form |= {"actor_token": actor_token, "actor_token_type": "urn:ietf:params:oauth:token-type:jwt"}
    shown = proof if proof is not None else key.proof(plane.clock, "POST", "/v1/token") if key is not None else ""
    told = {name: [value] for name, value in form.items() if value is not None}
    return dict(plane.stores.functions.invoke("sign", {"form": told, "proof": shown}))


def leaf(plane: ControlPlane, answer: Mapping[str, Any]) -> Hop:
    return plane.stores.chains.hops(answer["txn"])[answer["hop"]]


def test_a_child_that_only_its_key_vouches_for(plane: ControlPlane) -> None:
    """A container has no issuer: its parent named its key, and that is all that anybody knows of it."""
    family = Family(plane)
    answer = redeem(plane, family.ticket(scope="orders-dev", duration_s=600, max_depth=2), family.child)
    hop = leaf(plane, answer)
    verify_hop(hop, plane.stores.keys)
    assert (answer["token_type"], answer["scope"], answer["hop"]) == ("DPoP", "orders-dev", hop.id)
    assert (hop.kind, hop.depth, hop.max_depth, hop.scope) == (HopKind.DELEGATE, 1, 2, ("orders-dev",))
    assert hop.key_thumbprint == family.child.thumbprint
    assert hop.actor.key == f"{PUBLIC_URL}#key:{family.child.thumbprint}"
    assert hop.actor.name == "deploy-svc"
    assert (hop.evidence.kind, hop.evidence.assurance) == ("key", Assurance.VOUCHED)
    assert hop.teams == ("pipeline",)
    assert hop.ticket.startswith("tkt_")
    event = plane.events.seen[-1]
    assert (event.name.value, event.subject, event.txn, event.actor) == (
        "chain.extended",
        hop.id,
        hop.txn,
        hop.actor.key,
    )


def test_a_child_that_its_own_issuer_attests(plane: ControlPlane) -> None:
    """A tool with a token of its own is itself, with its own teams, and its key binds what it gets."""
    family, key = Family(plane), Key()
    answer = redeem(plane, family.ticket(TOOL), key, actor_token=plane.tool_token())
    hop = leaf(plane, answer)
    assert hop.actor.key == f"{TOOLS_ISSUER}#schema-tool"
    assert (hop.evidence.kind, hop.evidence.assurance) == ("oidc:tools", Assurance.ATTESTED)
    assert (hop.key_thumbprint, hop.teams) == (key.thumbprint, ("pipeline",))
    assert (hop.originator.subject, hop.accountable) == ("9001:700", ())


def test_the_founding_story(plane: ControlPlane) -> None:
    """The runner, its container's agent, a tool with its own token: three hops, each narrower, all named."""
    family, tool = Family(plane), Key()
    agent = redeem(plane, family.ticket(scope="orders-dev orders-prod"), family.child)
    ticket = plane.ticket(agent["access_token"], TOOL, by=family.child, name="schema-tool", scope="orders-dev/app")
    answer = redeem(plane, ticket, tool, actor_token=plane.tool_token())
    caller = plane.parts.identify()(plane.presented(answer["access_token"], "GET", "/v1/targets", tool))
    names = [hop.actor.name for hop in caller.chain.hops]
    assert names == ["acme/orders deploy", "deploy-svc", "schema-tool"]
    assert [hop.scope for hop in caller.chain.hops] == [("*",), ("orders-dev", "orders-prod"), ("orders-dev/app",)]
    assert caller.chain.accountable == ("gh:actor_id:1001",)
    assert plane.ask(answer["access_token"], "orders-dev", by=tool).status_code == 201
    assert plane.ask(answer["access_token"], "orders-prod", by=tool).json_body["code"] == "policy_denied"


Attempt = Callable[[ControlPlane, Family], object]


def _another_key(plane: ControlPlane, family: Family) -> object:
    return redeem(plane, family.ticket(), Key())


def _the_parents_key(plane: ControlPlane, family: Family) -> object:
    return redeem(plane, family.ticket(), family.parent)


def _no_actor_token(plane: ControlPlane, family: Family) -> object:
    return redeem(plane, family.ticket(TOOL), Key())


def _another_subject(plane: ControlPlane, family: Family) -> object:
    return redeem(plane, family.ticket(TOOL), Key(), actor_token=plane.tool_token(sub="other-tool"))


def _another_instance(plane: ControlPlane, family: Family) -> object:
    named = {"issuer": TOOLS_ISSUER, "claims": {"sub": "schema-tool", "instance": "pod-1"}}
    return redeem(plane, family.ticket(named), Key(), actor_token=plane.tool_token(instance="pod-2"))


def _another_repository(plane: ControlPlane, family: Family) -> object:
    """The CI's issuer serves the world: the ticket names our other repository, the thief has a token of his own."""
    named = {
        "issuer": "https://token.actions.githubusercontent.com",
        "claims": {"repository_owner_id": "9001", "repository_id": "800"},
    }
    return redeem(plane, family.ticket(named), Key(), actor_token=plane.ci_token(repository_id="801", run_id="6001"))


def _same_claims_of_another_issuer(plane: ControlPlane, family: Family) -> object:
    token = plane.ci_token(sub="schema-tool", run_id="6001", repository_id="800")
    return redeem(plane, family.ticket(TOOL), Key(), actor_token=token)


def _a_token_beside_the_named_key(plane: ControlPlane, family: Family) -> object:
    return redeem(plane, family.ticket(), family.child, actor_token=plane.tool_token())


def _unknown(plane: ControlPlane, family: Family) -> object:
    return redeem(plane, "cst_" + "A" * 43, family.child)


def _no_ticket_at_all(plane: ControlPlane, family: Family) -> object:
    return redeem(plane, "x" * 400, family.child)


def _expired(plane: ControlPlane, family: Family) -> object:
    ticket = family.ticket(ticket_ttl_s=10)
    plane.clock.advance(10)
    return redeem(plane, ticket, family.child)


def _replayed(plane: ControlPlane, family: Family) -> object:
    ticket = family.ticket()
    redeem(plane, ticket, family.child)
    return redeem(plane, ticket, family.child)


NOT_YOURS: dict[str, Attempt] = {
    "by another key": _another_key,
    "by the parent's own key": _the_parents_key,
    "a ticket without actor proof": _no_actor_token,
    "by another subject of the issuer": _another_subject,
    "by another instance than the one that was named": _another_instance,
    "by another repository": _another_repository,
    "by the same claims of another issuer": _same_claims_of_another_issuer,
    "by a token where a key was named": _a_token_beside_the_named_key,
    "unknown": _unknown,
    "not one of ours": _no_ticket_at_all,
    "expired": _expired,
    "a replayed ticket": _replayed,
}


@pytest.mark.parametrize("name", NOT_YOURS)
def test_a_stolen_ticket_redeemed_by_another_repository_and_its_kin(plane: ControlPlane, name: str) -> None:
    """Attack: the ticket was in an environment, a log, a message. It names its redeemer; to everybody else it is one
    thing, not valid, whatever is wrong, and nothing of it is used up."""
    hops = []
    family = Family(plane)
    with pytest.raises(TicketInvalid) as caught:
        hops.append(NOT_YOURS[name](plane, family))
    assert caught.value.public == "the ticket is not valid, or is not yours to redeem"
    assert not hops
    delegates = [hop for hop in plane.stores.chains.rows.values() if hop.kind is HopKind.DELEGATE]
    assert len(delegates) == (1 if name == "a replayed ticket" else 0)
    event = plane.events.seen[-1]
    assert (event.name.value, event.code) == ("ticket.refused", "ticket_invalid")
    assert event.actor


def test_a_thief_uses_nothing_up(plane: ControlPlane) -> None:
    """Attack: redeeming a stolen ticket in vain, so that the child finds it spent."""
    family = Family(plane)
    ticket = family.ticket()
    for _ in range(3):
        with pytest.raises(TicketInvalid):
            redeem(plane, ticket, Key())
    assert redeem(plane, ticket, family.child)["scope"] == "*"


def test_a_ticket_without_any_key(plane: ControlPlane) -> None:
    """A child without a key would be a bearer: whoever reads its token is it."""
    family = Family(plane)
    ticket = family.ticket()
    for proof in ("", "x.y.z", family.child.proof(plane.clock, "POST", "/v1/delegations")):
        with pytest.raises(KeyProofInvalid):
            redeem(plane, ticket, None, proof=proof)
        assert plane.events.seen[-1].name.value == "ticket.refused"
    redeem(plane, ticket, family.child)


def test_a_proof_for_redeeming_counts_once(plane: ControlPlane) -> None:
    """Two tickets for one key take two proofs: one that was seen redeems nothing more."""
    family = Family(plane)
    one, other = family.ticket(), family.ticket()
    proof = family.child.proof(plane.clock, "POST", "/v1/token")
    redeem(plane, one, None, proof=proof)
    with pytest.raises(AccessError):
        redeem(plane, other, None, proof=proof)


def test_the_actors_own_token_counts_once_for_everything(plane: ControlPlane) -> None:
    """Attack: a tool's token that somebody saw begins a run, or redeems a second ticket."""
    family, token = Family(plane), plane.tool_token()
    redeem(plane, family.ticket(TOOL), Key(), actor_token=token)
    with pytest.raises(TokenReplayed):
        redeem(plane, plane.ticket(family.token, TOOL, by=family.parent), Key(), actor_token=token)
    assert plane.exchange(token, key=Key()).json_body["code"] == "token_replayed"


def test_an_actors_bad_token_is_told_before_the_ticket_is_looked_at(plane: ControlPlane) -> None:
    """A child whose own token expired must learn that; a stranger learns nothing of the ticket by it."""
    family = Family(plane)
    for ticket in (family.ticket(TOOL), "cst_" + "A" * 43):
        with pytest.raises(TokenInvalid):
            redeem(plane, ticket, Key(), actor_token=plane.tool_token(aud="https://elsewhere.example.com"))


@pytest.mark.parametrize("what", ["txn", "hop", "identity", "issuer"])
def test_a_ticket_of_a_revoked_parent(plane: ControlPlane, what: str) -> None:
    """Attack: tickets are taken out before the parent is revoked, and redeemed after."""
    family = Family(plane)
    ticket = family.ticket()
    (root,) = plane.stores.chains.rows.values()
    key = {"txn": root.txn, "hop": root.id, "identity": root.actor.key, "issuer": root.actor.issuer}[what]
    plane.stores.revocations.revoke(f"{what}:{key}", by="ops", why="leak", at=plane.clock.now())
    with pytest.raises(GrantRevoked):
        redeem(plane, ticket, family.child)


def test_a_revoked_child_is_not_let_in_again(plane: ControlPlane) -> None:
    """Revoking a tool by its identity ends it under every parent, also tomorrow's."""
    family = Family(plane)
    plane.stores.revocations.revoke(f"identity:{TOOLS_ISSUER}#schema-tool", by="ops", why="leak", at=plane.clock.now())
    with pytest.raises(GrantRevoked):
        redeem(plane, family.ticket(TOOL), Key(), actor_token=plane.tool_token())


def test_a_ticket_of_an_expired_parent(plane: ControlPlane) -> None:
    """A child of a chain that ended would be one that nobody ends."""
    family = Family(plane)
    plane.clock.advance(8 * 3600 - 30)
    token = plane.refresh(family.token, key=family.parent).json_body["access_token"]
    ticket = plane.ticket(token, family.child, by=family.parent, ticket_ttl_s=60)
    plane.clock.advance(30)
    with pytest.raises(TicketInvalid):
        redeem(plane, ticket, family.child)


def test_a_child_already_in_the_chain(plane: ControlPlane) -> None:
    """A loop shows nobody who acts: neither an identity nor a key of the chain comes in again below it."""
    family, tool = Family(plane), Key()
    named = {
        "issuer": "https://token.actions.githubusercontent.com",
        "claims": {"repository_owner_id": "9001", "repository_id": "700"},
    }
    with pytest.raises(AlreadyInChain):
        redeem(plane, family.ticket(named), Key(), actor_token=plane.ci_token(run_id="6001"))
    with pytest.raises(AlreadyInChain):
        redeem(plane, family.ticket(family.parent), family.parent)
    with pytest.raises(AlreadyInChain):
        redeem(plane, family.ticket(TOOL), family.parent, actor_token=plane.tool_token())
    first = redeem(plane, family.ticket(TOOL), tool, actor_token=plane.tool_token())
    again = plane.ticket(first["access_token"], TOOL, by=tool)
    with pytest.raises(AlreadyInChain):
        redeem(plane, again, Key(), actor_token=plane.tool_token())


def _forged(change: Callable[[dict[str, Any]], None]) -> Callable[[ControlPlane, Family], str]:
    def forge(plane: ControlPlane, family: Family) -> str:
        ticket = family.ticket(scope="orders-dev")
        (row,) = [name for name in plane.stores.once.rows if name.startswith("ticket#")]
        text, until = plane.stores.once.rows[row]
        record = json.loads(text)
        change(record)
        plane.stores.once.rows[row] = (json.dumps(record), until)
        return ticket

    return forge


def _unsigned(record: dict[str, Any]) -> None:
    record["signature"] = ""


def _wider(record: dict[str, Any]) -> None:
    record["scope"] = ["*"]


def _longer(record: dict[str, Any]) -> None:
    record["expires_at"] = "2099-01-01T00:00:00.000Z"


def _no_record(record: dict[str, Any]) -> None:
    record.clear()


def _with_a_hops_signature(record: dict[str, Any]) -> None:
    record["signature"] = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"


def _a_time_that_is_none(record: dict[str, Any]) -> None:
    record["issued_at"] = "yesterday"


def _a_time_without_a_zone(record: dict[str, Any]) -> None:
    record["issued_at"] = "2026-11-02T09:30:00"


def _a_redeemer_that_is_none(record: dict[str, Any]) -> None:
    record["redeemer"] = {"issuer": "x", "claims": ["sub"]}


FORGERIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "unsigned": _unsigned,
    "widened": _wider,
    "made to last": _longer,
    "emptied": _no_record,
    "signed as something else": _with_a_hops_signature,
    "with a time that is none": _a_time_that_is_none,
    "with a time without a zone": _a_time_without_a_zone,
    "with a redeemer that is none": _a_redeemer_that_is_none,
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_ticket_forged_straight_into_the_table(plane: ControlPlane, name: str) -> None:
    """Attack: the API's role can write that table. What ``sign`` did not sign is no ticket."""
    family = Family(plane)
    ticket = _forged(FORGERIES[name])(plane, family)
    with pytest.raises(TicketInvalid):
        redeem(plane, ticket, family.child)


def test_a_ticket_whose_row_was_made_to_last(plane: ControlPlane) -> None:
    """Attack: the row is kept past its time. When a ticket ends is signed, and the row's own time says less."""
    family = Family(plane)
    ticket = family.ticket()
    (row,) = [name for name in plane.stores.once.rows if name.startswith("ticket#")]
    text, until = plane.stores.once.rows[row]
    plane.stores.once.rows[row] = (text, until + 3_600)
    plane.clock.advance(60)
    with pytest.raises(TicketInvalid):
        redeem(plane, ticket, family.child)


def test_a_ticket_moved_under_another_text_is_still_its_own(plane: ControlPlane) -> None:
    """Attack: a used ticket's record is copied to a fresh text. It is used by its own id, not by the text's."""
    family = Family(plane)
    ticket, fresh = family.ticket(), family.ticket()
    first, second = [name for name in plane.stores.once.rows if name.startswith("ticket#")]
    plane.stores.once.rows[second] = plane.stores.once.rows[first]
    redeem(plane, ticket, family.child)
    with pytest.raises(TicketInvalid):
        redeem(plane, fresh, family.child)


def test_a_parents_hop_that_was_changed_in_the_table_lets_nobody_in(plane: ControlPlane) -> None:
    """A hop that does not verify is no parent, whatever its ticket says."""
    family = Family(plane)
    ticket = family.ticket()
    (root,) = plane.stores.chains.rows.values()
    plane.stores.chains.rows[root.txn, root.depth, root.id] = replace(root, scope=("orders-dev",))
    with pytest.raises(ProofInvalid):
        redeem(plane, ticket, family.child)


def test_a_childs_token_may_be_narrower_still(plane: ControlPlane) -> None:
    """The child asks for what this step needs; more than its hop has is refused, and the ticket stays good."""
    family = Family(plane)
    ticket = family.ticket(scope="orders-dev orders-prod")
    with pytest.raises(OutOfScope):
        redeem(plane, ticket, family.child, scope="payroll")
    answer = redeem(plane, ticket, family.child, scope="orders-dev")
    assert answer["scope"] == "orders-dev"
    assert leaf(plane, answer).scope == ("orders-dev", "orders-prod")


def test_an_actor_token_goes_with_a_ticket_alone(plane: ControlPlane) -> None:
    """RFC 8693 lets it come with anything; here it proves who redeems, and nothing else."""
    jwt_type = "urn:ietf:params:oauth:token-type:jwt"
    answer = plane.exchange(plane.ci_token(), actor_token=plane.tool_token(), actor_token_type=jwt_type)
    assert answer.json_body["code"] == BadRequest.code
    ticket = Family(plane).ticket(TOOL)
    for token, its_type in ((plane.tool_token(), None), (plane.tool_token(), "x"), (None, jwt_type)):
        answer = plane.redeem(ticket, key=Key(), actor_token=token, actor_token_type=its_type)
        assert answer.json_body["code"] == BadRequest.code


def test_nothing_is_used_up_by_a_token_that_cannot_be_made(plane: ControlPlane) -> None:
    """KMS out of reach between proof and hop: the child tries again with the ticket that it has."""
    family = Family(plane)
    ticket = family.ticket()
    sign, calls = plane.stores.keys.signer("token").sign, 0

    def failing(typ: str, payload: bytes) -> str:
        nonlocal calls
        calls += 1
        if typ == "at+jwt":
            raise ValueError("past what the key signs")
        return sign(typ, payload)

    plane.stores.keys.signer("token").sign = failing  # type: ignore[method-assign]
    with pytest.raises(TokenInvalid):
        redeem(plane, ticket, family.child)
    plane.stores.keys.signer("token").sign = sign  # type: ignore[method-assign]
    assert calls
    assert redeem(plane, ticket, family.child)["scope"] == "*"


def test_a_redemption_whose_function_died_is_completed_by_its_own_key(plane: ControlPlane) -> None:
    """Between using the ticket up and putting the hop a function may die: the child that proved itself goes on, with
    the same token of its own, and there is one hop."""
    family, key = Family(plane), Key()
    ticket, token = family.ticket(TOOL), plane.tool_token()
    put = plane.stores.chains.put

    def dying(hop: Hop) -> None:
        raise StoreUnavailable("out of reach")

    plane.stores.chains.put = dying  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        redeem(plane, ticket, key, actor_token=token)
    plane.stores.chains.put = put  # type: ignore[method-assign]
    with pytest.raises(TicketInvalid):
        redeem(plane, ticket, Key(), actor_token=plane.tool_token())
    answer = redeem(plane, ticket, key, actor_token=token)
    assert leaf(plane, answer).key_thumbprint == key.thumbprint
    with pytest.raises(TicketInvalid):
        redeem(plane, ticket, key, actor_token=plane.tool_token())
    assert [hop.depth for hop in plane.stores.chains.rows.values()] == [0, 1]


def test_two_who_complete_one_redemption_make_one_hop(plane: ControlPlane) -> None:
    """The same key twice, after a function died: the put decides, and whose own answer was lost is not refused."""
    put = plane.stores.chains.put

    def by_another_first(hop: Hop) -> None:
        put(sign_hop(plane.stores.signer("token"), replace(hop, signature="")))
        put(hop)

    def twice(hop: Hop) -> None:
        put(hop)
        put(hop)

    family, other = Family(plane), Key()
    first, second = family.ticket(), family.ticket(other)
    plane.stores.chains.put = by_another_first  # type: ignore[method-assign]
    with pytest.raises(TicketInvalid):
        redeem(plane, first, family.child)
    plane.stores.chains.put = twice  # type: ignore[method-assign]
    redeem(plane, second, other)
    assert [hop.depth for hop in plane.stores.chains.rows.values()] == [0, 1, 1]


def test_what_is_forbidden_to_a_branch_is_forbidden_to_the_keys_that_it_vouches_for(plane: ControlPlane) -> None:
    """Attack: a job of a branch that may not open the target lets in a key of its own, which has its teams, and of
    which no rule knows the branch."""
    rule = (
        '@id("main-only") forbid (principal, action == Action::"session:open", resource)'
        ' when { principal.hasTag("ref") && principal.getTag("ref") != "refs/heads/main" };'
    )
    plane.bundles.activate(policy=FILES["policies/main.cedar"] + rule)
    for ref, run, status in (("refs/heads/main", "6001", 201), ("refs/heads/feature", "6002", 403)):
        parent, child, grandchild = Key(), Key(), Key()
        root = plane.token(key=parent, ref=ref, run_id=run)
        token = plane.child(root, child, by=parent)
        below = plane.child(token, grandchild, by=child)
        for text, key in ((root, parent), (token, child), (below, grandchild)):
            assert plane.ask(text, "orders-dev", by=key).status_code == status


def test_a_replayed_ticket_whose_use_was_deleted(plane: ControlPlane) -> None:
    """Attack: who can write the table takes the row of the use away. The hop that it became names the ticket."""
    family = Family(plane)
    ticket = family.ticket()
    redeem(plane, ticket, family.child)
    for row in [name for name in plane.stores.once.rows if name.startswith("redeemed#")]:
        del plane.stores.once.rows[row]
    with pytest.raises(TicketInvalid):
        redeem(plane, ticket, family.child)


def test_a_forged_use_of_a_ticket_puts_no_words_into_a_signed_hop(plane: ControlPlane) -> None:
    """Attack: who can write the table writes a ticket's use before its redeemer comes, with an id that is lines and
    escapes wherever it is shown: we would sign it as the hop's."""
    family = Family(plane)
    ticket = family.ticket()
    (held,) = [row for name, row in plane.stores.once.rows.items() if name.startswith("ticket#")]
    forged = json.dumps({"hop": "hop_x\n\x1b[2J", "key": family.child.thumbprint})
    plane.stores.once.rows[f"redeemed#{json.loads(held[0])['id']}"] = (forged, held[1])
    with pytest.raises(TicketInvalid):
        redeem(plane, ticket, family.child)
    assert len(plane.stores.chains.rows) == 1


def test_one_ticket_redeemed_by_fifty_callers_has_one_winner(plane: ControlPlane) -> None:
    """Attack: a child that shares its key, or one process many times, multiplies what it was let in for."""
    family = Family(plane)
    ticket = family.ticket()
    proofs = [family.child.proof(plane.clock, "POST", "/v1/token") for _ in range(CALLERS)]
    start = threading.Barrier(CALLERS)

    def one(proof: str) -> object:
        start.wait(timeout=30)
        try:
            return redeem(plane, ticket, None, proof=proof)
        except AccessError as error:
            return error

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(one, proofs))
    assert len([answer for answer in answers if isinstance(answer, dict)]) == 1
    assert {type(answer) for answer in answers} == {dict, TicketInvalid}
    assert [hop.depth for hop in plane.stores.chains.rows.values()] == [0, 1]
