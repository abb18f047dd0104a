"""What a whole archive was decided under and by whom it was ended: bundles, activations, ends of boots, sign-offs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chalicelib.config.files import bundle_digest, encode_bundle
from chalicelib.domain.activation import bundle_key
from chalicelib.domain.copy_statement import copy_key, stored_statement
from chalicelib.identity.jws import sign_copy
from tests.fakes.digested import HOUR_S, Digested, signed_activation
from tests.fakes.whole_copy import WholeCopy


@pytest.fixture
def digested() -> Digested:
    return Digested()


def _drop(on: Digested, key: str) -> None:
    on.administrator.delete_object(key)


def _edit(on: Digested, key: str) -> None:
    on.administrator.put_object(key, encode_bundle({"targets.yaml": b"targets: {mine: {}}\n"}))


def _spoil(on: Digested, key: str) -> None:
    on.administrator.put_object(key, b"")


@pytest.mark.parametrize(("tamper", "kind"), [(_drop, "missing"), (_edit, "altered"), (_spoil, "altered")])
def test_the_configuration_that_things_were_decided_under_is_removed_or_edited(
    digested: Digested, tamper: Callable[[Digested, str], None], kind: str
) -> None:
    """Attack: whoever can write the bucket takes away or edits the rules of a past day. No digest lists a bundle; the
    signed activation names its hash."""
    digested.stores.activations.put(signed_activation(digested))
    digested.pump()
    digested.digest()
    key = bundle_key(bundle_digest({"targets.yaml": b"targets: {}\n"}))
    assert digested.named() == {}
    tamper(digested, key)
    assert digested.named()[key] == [kind]


def test_an_activation_that_was_signed_by_nobody_is_named(digested: Digested) -> None:
    """Attack: who can write the table, but has no activation key, activates a bundle of their own."""
    forged = replace(signed_activation(digested), signature="")
    digested.stores.activations.put(forged)
    digested.pump()
    assert digested.named()["activations/00000001.json"] == ["altered"]


def test_a_second_end_of_a_broker_boot_is_named(tmp_path: Path) -> None:
    """Attack: an end is put beside the one that counts, so that a reader may take the wrong one."""
    whole = WholeCopy(tmp_path)
    on = whole.digested
    assert on.named() == {}
    (key,) = on.stores.objects.keys("boots/v1/")
    day, _, name = key.rpartition("/")
    for twin in (key.replace(day, "boots/v1/2026-11-03"), f"{day}/boot-9.json"):
        on.stores.objects.rows[twin] = on.stores.objects.rows[key]
        assert on.named()[twin] == ["extra" if twin.endswith(name) else "swapped"]
        del on.stores.objects.rows[twin]


@pytest.mark.parametrize("known", [True, False], ids=["digested", "newer"])
def test_a_sign_off_or_a_statement_that_nobody_signed_is_named(digested: Digested, tmp_path: Path, known: bool) -> None:
    """Attack: who can write the bucket, and has no key, puts a review that says all was well, and a word for a copy of
    theirs; the next digest counts them like any other."""
    whole = WholeCopy(tmp_path, young=True)
    sound = whole.stated("ab" * 32, 3, 30)
    forged = replace(whole.stated("cd" * 32, 3, 30), files=4)
    day = str(digested.clock.now().date())
    at = digested.clock.now()
    put = {
        copy_key(sound.id, at): stored_statement(
            sign_copy(digested.stores.signer("copy"), replace(sound, stated_at=at))
        ),
        copy_key(forged.id, at): stored_statement(replace(forged, stated_at=at)),
        f"copies/v1/{day}/cpy_moved.json": stored_statement(
            sign_copy(digested.stores.signer("copy"), replace(sound, stated_at=at))
        ),
        f"signoffs/v1/{day}/sgn_x.json": b"{}",
    }
    for key, stored in put.items():
        digested.stores.objects.put_new(key, stored, content_type="application/json")
    if known:
        digested.clock.advance(HOUR_S)
        digested.digest()
    bad, moved, none = list(put)[1:]
    assert digested.named() == {bad: ["altered"], moved: ["swapped"], none: ["altered"]}
