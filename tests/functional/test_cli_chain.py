"""`countersign chain show` and `chain verify` against a real HTTP server, with real signatures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.chain import HOP_SIGNATURE_TYPE, Hop
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.identity import Assurance
from chalicelib.domain.signature import signed_payload
from chalicelib.identity.jws import sign_hop
from countersign.__main__ import main
from countersign.signatures import keys_of
from tests.fakes.api_server import ID_TOKEN, TXN, ApiServer
from tests.fakes.chains import chain_answer, changed_hop, child, keys_answer, shown, story
from tests.fakes.signer import MemoryKeys
from tests.fakes.waiting_clock import WaitingClock


@pytest.fixture
def keys() -> MemoryKeys:
    return MemoryKeys()


@pytest.fixture
def hops(keys: MemoryKeys) -> list[Hop]:
    return story(keys, TXN)


@pytest.fixture
def api(keys: MemoryKeys, hops: list[Hop]) -> Iterator[ApiServer]:
    with ApiServer() as server:
        server.chain = chain_answer(hops)
        server.keys = keys_answer(keys)
        yield server


def run(api: ApiServer, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    environment = {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": ID_TOKEN, "XDG_STATE_HOME": api.state.name}
    code = main(arguments, environment, out=out, err=err, clock=WaitingClock())
    return code, out.getvalue(), err.getvalue()


def trust_file(api: ApiServer, tmp_path: Path, *, purposes: tuple[str, ...] = ("token", "record")) -> str:
    """Return the path of a file with the thumbprints that the keys have: what an auditor got at onboarding."""
    known = [key for key in keys_of(api.keys) if key.purpose in purposes]
    path = tmp_path / "trust"
    path.write_text("# at onboarding\n\n" + "".join(f"{key.purpose} {key.thumbprint}  # {key.kid}\n" for key in known))
    return str(path)


def test_show_is_the_tree(api: ApiServer) -> None:
    """Who let whom in: each below its parent, who vouches, how strongly, what it may do."""
    code, out, _ = run(api, "chain", "show", TXN)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"chain {TXN}  4 hops, for acme/orders deploy")
    indents = [line.index(line.lstrip("│├└─ ")) for line in lines[1::2]]
    assert indents == [0, 3, 6, 9]
    assert "attested by https://token.actions.githubusercontent.com" in lines[1]
    assert "vouched: its parent named its key kkkkkkkkkkkk" in lines[3]
    assert "db-prod/deploy#ssh:exec · until" in lines[6]
    assert "depth 2 of 2" in lines[6]
    assert "db-prod as deploy" in lines[7]


def test_two_children_stand_side_by_side(api: ApiServer, keys: MemoryKeys, hops: list[Hop]) -> None:
    """A tree, not a list: what ran beside what is what a reader looks for."""
    api.chain = chain_answer([*hops, child(keys, hops[0], "linter", Assurance.VOUCHED, scope=("db-prod",))])
    lines = run(api, "chain", "show", TXN)[1].splitlines()
    assert sum(line.startswith("├─ ") for line in lines) == 1
    assert sum(line.startswith("└─ ") for line in lines) == 1


def test_a_revoked_hop_is_said(api: ApiServer, hops: list[Hop]) -> None:
    """In an incident it is the first question."""
    api.chain = chain_answer(hops) | {"hops": [shown(hop, revoked=hop.depth == 1) for hop in hops]}
    lines = run(api, "chain", "show", TXN)[1].splitlines()
    assert ["REVOKED" in line for line in lines[1::2]] == [False, True, False, False]


def test_verify_without_trust_says_whose_word_it_is(api: ApiServer) -> None:
    """Attack: re-sign everything with a new key. By the service's own keys all of it holds: that is no proof of whose
    they are, so it is said, and a script sees another code than of a verified chain."""
    code, out, _ = run(api, "chain", "verify", TXN)
    assert code == 78
    assert "UNANCHORED" in out
    assert "VERIFIED" not in out


def test_verify_with_the_fingerprints_of_onboarding(api: ApiServer, tmp_path: Path) -> None:
    """The whole of it: every hash, signature, link and scope, by keys that the auditor was given by another way."""
    code, out, _ = run(api, "chain", "verify", TXN, "--trust", trust_file(api, tmp_path))
    assert code == 0
    assert "VERIFIED" in out
    assert "signed 3 hops" in out


def test_everything_signed_again_with_a_new_key(api: ApiServer, tmp_path: Path) -> None:
    """Attack: whoever answers made the chain anew with keys of theirs: the trust file has none of them."""
    trust = trust_file(api, tmp_path)
    forged = MemoryKeys()
    api.chain, api.keys = chain_answer(story(forged, TXN)), keys_answer(forged)
    code, out, _ = run(api, "chain", "verify", TXN, "--trust", trust)
    assert code == 65
    assert "the trust file does not list" in out


def test_a_key_of_one_purpose_is_not_trusted_for_another(api: ApiServer, tmp_path: Path) -> None:
    """Attack: the broker's key, stolen, signs hops that only `sign` may sign."""
    code, out, _ = run(api, "chain", "verify", TXN, "--trust", trust_file(api, tmp_path, purposes=("token",)))
    assert (code, "record key that the trust file does not list" in out) == (65, True)


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (0, {"scope": ["*", "x"]}),
        (1, {"scope": ["*"]}),
        (1, {"expires_at": "2027-01-01T00:00:00.000Z"}),
        (2, {"max_depth": 3}),
        (2, {"actor": {"iss": "https://cluster.example", "sub": "somebody", "name": "else"}}),
        (3, {"principal": "root"}),
        (0, {"accountable": []}),
        (2, {"ticket": "tkt_another"}),
    ],
)
def test_a_chain_with_any_altered_hop_fails(api: ApiServer, number: int, changes: dict[str, object]) -> None:
    """Attack: one member of one hop says something else than what was signed."""
    api.chain = changed_hop(api.chain, number, **changes)
    code, out, _ = run(api, "chain", "verify", TXN)
    assert code == 65
    assert "its hash is not that of what it says" in out


def test_a_hop_whose_hash_was_made_to_fit_fails(api: ApiServer, hops: list[Hop]) -> None:
    """Attack: ... and the hash beside it was made to fit: the signature was not."""
    wider = replace(hops[2], scope=("db-prod",))
    api.chain = chain_answer([hops[0], hops[1], wider, hops[3]])
    out = run(api, "chain", "verify", TXN)[1]
    assert "its signature: it is over something else" in out
    assert "the chain of identities is broken" in out, "its child names the hash that it had"


def test_a_signature_that_was_made_to_fit_fails(api: ApiServer, keys: MemoryKeys, hops: list[Hop]) -> None:
    """Attack: ... and the signature's own text too, by somebody who has everything but the key: its 64 bytes are those
    of another signature by the right key."""
    wider = replace(hops[1], scope=("*",))
    typ, payload = HOP_SIGNATURE_TYPE, signed_payload(wider.sha256())
    stolen = hops[1].signature.rpartition(".")[2]
    forged = MemoryKeys().signer("token").sign(typ, payload).rpartition(".")[0]
    assert forged.split(".")[0] == hops[1].signature.split(".")[0], "the header names the right key"
    api.chain = chain_answer([hops[0], replace(wider, signature=f"{forged}.{stolen}")])
    code, out, _ = run(api, "chain", "verify", TXN)
    assert (code, "its signature: it does not verify" in out) == (65, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": ("*", "db-prod")},
        {"expires_at": None},
        {"max_depth": 4},
        {"depth": 3},
        {"parent_sha256": "0" * 64},
    ],
)
def test_a_signed_hop_with_more_than_its_parent_fails(
    api: ApiServer, keys: MemoryKeys, hops: list[Hop], fields: dict[str, Any]
) -> None:
    """Attack, or a fault of ours: the service signed more than the parent had; whoever verifies does not believe it."""
    if "expires_at" in fields:
        fields = {"expires_at": hops[1].expires_at + timedelta(seconds=1)}
    wider = child(keys, hops[1], "x", Assurance.VOUCHED, **({"scope": ("db-prod",)} | fields))
    api.chain = chain_answer([*hops[:2], wider])
    code, out, _ = run(api, "chain", "verify", TXN)
    assert (code, "the chain of identities is broken" in out) == (65, True)


def test_a_hop_that_was_taken_out_is_missed(api: ApiServer, hops: list[Hop]) -> None:
    """Attack: the middle of the chain is not shown, so that the tool seems to be the pipeline's own."""
    api.chain = chain_answer([hops[0], *hops[2:]])
    code, out, _ = run(api, "chain", "verify", TXN)
    assert (code, "not complete" in out) == (65, True)


def test_a_chain_in_anothers_place(api: ApiServer, keys: MemoryKeys) -> None:
    """Attack: a whole and well signed chain, of another run, is shown for the one that was asked for."""
    api.chain = chain_answer(story(keys, "01j9z3k4m5n6p7q8r9s0t1v2w9"))
    code, out, _ = run(api, "chain", "verify", TXN)
    assert (code, "of another chain" in out) == (65, True)


def test_a_member_beside_the_hash_that_says_otherwise(api: ApiServer) -> None:
    """Attack: what a reader of the JSON sees (`assurance`, `scope`) is not what was signed."""
    told = json.loads(json.dumps(api.chain))
    told["hops"][1]["assurance"] = "attested"
    api.chain = told
    code, out, _ = run(api, "chain", "verify", TXN)
    assert (code, "another assurance" in out) == (65, True)
    assert "vouched" in run(api, "chain", "show", TXN)[1], "shown is what was hashed"


def test_a_target_hop_that_the_token_key_signed(api: ApiServer, keys: MemoryKeys, hops: list[Hop]) -> None:
    """Attack: `sign`'s key is used for the broker's word about what was reached."""
    api.chain = chain_answer([*hops[:3], sign_hop(keys.signer("token"), replace(hops[3], signature=""))])
    code, out, _ = run(api, "chain", "verify", TXN)
    assert (code, "no record key is known" in out) == (65, True)


@pytest.mark.parametrize(
    "hostile",
    [
        {"hops": []},
        {"hops": [{}]},
        {"hops": [{"hashed": {"v": 3}}]},
        {"hops": "x"},
        {},
    ],
)
def test_an_answer_that_makes_no_sense(api: ApiServer, hostile: dict[str, object]) -> None:
    """It fails closed, in words."""
    api.chain = hostile or {"txn": TXN}
    code, _, err = run(api, "chain", "verify", TXN)
    assert (code, "makes no sense" in err) == (69, True)


def test_a_hop_with_a_member_that_no_hop_has(api: ApiServer) -> None:
    """Attack: a member that this reader does not know is hashed along: what it means nobody here can say."""
    api.chain = changed_hop(api.chain, 1, surprise="x")
    assert run(api, "chain", "verify", TXN)[0] == 69


def test_names_of_others_are_made_safe(api: ApiServer, keys: MemoryKeys, hops: list[Hop]) -> None:
    """Attack: an actor's name with an escape sequence runs in the auditor's terminal."""
    named = child(keys, hops[0], "x\x1b[2J\x1b]0;pwned\x07", Assurance.VOUCHED, scope=("db-prod",))
    api.chain = chain_answer([hops[0], named])
    out = run(api, "chain", "verify", TXN)[1]
    assert not set(out) & set("\x1b\x07\r")
    assert "<U+001B>" in out


def test_json(api: ApiServer) -> None:
    """`show --json` is the service's answer; `verify --json` says per hop what does not hold."""
    assert json.loads(run(api, "chain", "show", TXN, "--json")[1]) == api.chain
    api.chain = changed_hop(api.chain, 2, max_depth=3)
    told = json.loads(run(api, "chain", "verify", TXN, "--json")[1])
    assert told["verdict"] == "BROKEN"
    assert [bool(hop["faults"]) for hop in told["hops"]] == [False, False, True, True]


@pytest.mark.parametrize("text", ["", "x", "token short\n", "nobody " + "a" * 43, "a" * 43 + " token"])
def test_a_trust_file_that_is_none(api: ApiServer, tmp_path: Path, text: str) -> None:
    """A mistake in it must not make a chain seem untrusted, or trusted."""
    path = tmp_path / "trust"
    path.write_text(text)
    assert run(api, "chain", "verify", TXN, "--trust", str(path))[0] == 64


def test_a_hop_of_the_first_version_still_verifies(api: ApiServer, keys: MemoryKeys, hops: list[Hop]) -> None:
    """Chains of before delegation are evidence too."""
    old = replace(hops[0], txn=Txn(TXN), version=1, max_depth=0, signature="")
    signed = sign_hop(keys.signer("token"), old)
    hashed = json.loads(json.dumps(old.hashed()))
    told = {"hashed": hashed, "sha256": old.sha256(), "signature": signed.signature, "revoked": False}
    api.chain = {"txn": TXN, "hops": [told]}
    assert run(api, "chain", "verify", TXN)[0] == 78
