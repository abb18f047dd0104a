"""What others say of a population: hourly digests that counted its sessions, and people who signed it off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from chalicelib.domain.canonical import canonical
from chalicelib.domain.digest import DIGEST_SIGNATURE_TYPE, HourlyDigest, Kind, Tally, digest_key, hour_of
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import new_session_id
from chalicelib.domain.recording import merkle_root
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.signoff import SIGNOFF_SIGNATURE_TYPE, Selection, Signoff, signoff_key
from chalicelib.identity.jws import sign_sha256, sign_signoff, verify_sha256
from chalicelib.services.population import Population, ReadPopulation
from chalicelib.services.reviewed import FindingKind
from chalicelib.services.signoffs import signoff_of, signoffs_of
from chalicelib.services.witnesses import Witness, hourly_witness
from tests.fakes.archive import Archive
from tests.fakes.clock import START
from tests.unit.chalicelib.domain.test_signoff import SIGNOFF
from tests.unit.chalicelib.services.test_population import HOUR

EMPTY = Tally(count=0, root=merkle_root([]).hex())


def digest(archive: Archive, hour: datetime, *opened: str, key: str = "digest") -> str:
    """Put the digest of an hour that counted these sessions, and return its key."""
    made = HourlyDigest(
        hour=hour,
        previous_sha256="",
        made_at=hour + timedelta(minutes=72),
        kinds=dict.fromkeys(Kind, EMPTY),
        items=(),
        objects=(),
        manifests=(),
        opened=opened,
        sealed=(),
        unsealed=(),
        unreadable=(),
    )
    signed = replace(made, signature=sign_sha256(archive.stores.signer(key), DIGEST_SIGNATURE_TYPE, made.sha256()))
    archive.stores.objects.rows[digest_key(hour)] = signed.stored()
    return digest_key(hour)


def population(archive: Archive) -> Population:
    return ReadPopulation(archive.stores)(HOUR, Selection(target="db-prod"))


def witness(archive: Archive) -> Witness:
    return hourly_witness(archive.stores.objects, archive.stores.keys, population(archive), readers=2)


def test_digests_that_counted_what_is_there_agree() -> None:
    """Each session of the period, selected or not; hours without one are counted."""
    archive = Archive()
    key = digest(archive, hour_of(START), archive.orders.session_id, archive.db.session_id)
    found = witness(archive)
    assert ([name for name, _ in found.digests], found.hours_without, found.findings) == ([key], 0, ())
    nothing = witness(Archive())
    assert (nothing.digests, nothing.hours_without) == ((), 1)


def test_a_session_that_was_removed_whole_is_named_by_a_digest() -> None:
    """Attack: a session goes with its row, hops, connections and manifests: only what was counted knows of it."""
    archive = Archive()
    gone = new_session_id(START)
    digest(archive, hour_of(START), archive.orders.session_id, gone)
    assert [(one.key, one.kind) for one in witness(archive).findings] == [(gone, FindingKind.MISSING)]


def test_a_session_that_was_archived_late_is_looked_for_too() -> None:
    """A stream's record may come hours after."""
    archive = Archive()
    gone = new_session_id(START)
    digest(archive, hour_of(START) + timedelta(hours=30), gone)
    assert [one.key for one in witness(archive).findings] == [gone]


def test_sessions_of_other_periods_are_others() -> None:
    """A digest of the period's first hour also counts what was before it."""
    archive = Archive()
    digest(archive, hour_of(HOUR.since), new_session_id(HOUR.since - timedelta(minutes=1)), new_session_id(HOUR.until))
    assert witness(archive).findings == ()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda archive, key: archive.stores.objects.rows.update({key: b"{}"}), FindingKind.ALTERED),
        (
            lambda archive, key: archive.stores.objects.rows.update(
                {key: archive.stores.objects.rows[key].replace(b'"opened":[', b'"opened":["x",')}
            ),
            FindingKind.ALTERED,
        ),
        (lambda archive, _key: digest(archive, hour_of(START), key="record"), FindingKind.OTHER_KEY),
        (
            lambda archive, key: archive.stores.objects.rows.update(
                {digest_key(hour_of(START) + timedelta(hours=1)): archive.stores.objects.rows[key]}
            ),
            FindingKind.SWAPPED,
        ),
    ],
)
def test_a_digest_that_does_not_hold_is_a_finding(change: Callable[[Archive, str], object], kind: FindingKind) -> None:
    """A witness that was bribed is worse than none."""
    archive = Archive()
    key = digest(archive, hour_of(START), archive.db.session_id)
    change(archive, key)
    assert [one.kind for one in witness(archive).findings] == [kind]


# -- sign-offs ---------------------------------------------------------------------------------------------------------


def signed(archive: Archive, **changed: object) -> Signoff:
    """Put a sign-off of the population, as the function does, and return it."""
    of = replace(SIGNOFF, population_sha256=population(archive).sha256, period=HOUR, **changed)  # type: ignore[arg-type]
    made = sign_signoff(archive.stores.signer("signoff"), of)
    put(archive, made)
    return made


def put(archive: Archive, signoff: Signoff) -> str:
    key = signoff_key(signoff.id, signoff.signed_at)
    archive.stores.objects.rows[key] = canonical({**signoff.signed(), "signature": signoff.signature})
    return key


def read(archive: Archive) -> tuple[tuple[Signoff, ...], list[FindingKind]]:
    now = SIGNOFF.signed_at + timedelta(days=1)
    found, faults = signoffs_of(archive.stores.objects, archive.stores.keys, population(archive), now)
    return found, [fault.kind for fault in faults]


def test_a_sign_off_of_this_very_population_is_found() -> None:
    """And none of another digest."""
    archive = Archive()
    made = signed(archive)
    put(archive, sign_signoff(archive.stores.signer("signoff"), replace(SIGNOFF, id=made.id)))
    assert read(archive) == ((), [])
    put(archive, made)
    assert read(archive) == ((made,), [])
    verify_sha256(archive.stores.keys, KeyPurpose.SIGNOFF, SIGNOFF_SIGNATURE_TYPE, made.signature, made.sha256())


def _unsigned(archive: Archive, made: Signoff) -> None:
    put(archive, replace(made, reviewer=SIGNOFF.reviewer, sessions=99))


def _by_another_key(archive: Archive, made: Signoff) -> None:
    put(archive, sign_signoff(archive.stores.signer("answer"), made))


def _under_another_name(archive: Archive, made: Signoff) -> None:
    key = put(archive, made)
    archive.stores.objects.rows[key.replace("0aa.json", "0ab.json")] = archive.stores.objects.rows.pop(key)


def _no_json(archive: Archive, made: Signoff) -> None:
    archive.stores.objects.rows[put(archive, made)] = b"[]"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_unsigned, FindingKind.ALTERED),
        (_by_another_key, FindingKind.OTHER_KEY),
        (_under_another_name, FindingKind.SWAPPED),
        (_no_json, FindingKind.ALTERED),
    ],
)
def test_a_forged_sign_off_is_a_finding_and_none(change: Callable[[Archive, Signoff], None], kind: FindingKind) -> None:
    """Attack: whoever can put an object writes that the security team looked."""
    archive = Archive()
    change(archive, signed(archive))
    assert read(archive) == ((), [kind])


def test_an_object_is_a_sign_off_byte_for_byte() -> None:
    """Two texts of one sign-off would be two objects of which one hash is known."""
    archive = Archive()
    made = signed(archive)
    stored = archive.stores.objects.rows[signoff_key(made.id, made.signed_at)]
    assert signoff_of(stored) == made
    with pytest.raises(ProofInvalid):
        signoff_of(stored.replace(b'"v":1', b'"v": 1'))


def test_what_is_not_over_is_signed_off_by_nobody() -> None:
    """Nothing is looked for before the period ends."""
    archive = Archive()
    signed(archive)
    assert signoffs_of(archive.stores.objects, archive.stores.keys, population(archive), START) == ((), ())
