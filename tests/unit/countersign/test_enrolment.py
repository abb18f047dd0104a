"""How enrolling changes a password: wherever it dies no password is lost, and what is not shown is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from chalicelib.domain.errors import AccessError, StoreUnavailable, TargetUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import Principal, Target
from chalicelib.domain.verifier import Verifier, matches, verifier_of
from chalicelib.store.secrets import SecretVersion
from countersign.commands.enroll import refuse_shared
from countersign.doctor.checks import Status, Told
from countersign.enrolment.rotation import rotate
from countersign.failures import Failure
from tests.e2e.postgres_broker import target_at

FORMER, FRESH = "former", "fresh"
REFERENCE = "countersign/targets/orders-prod/app"
STEPS = ("takes", "current", "pending", "takes", "propose", "change", "takes", "promote", "takes", "others")


class Script:
    """Counts the calls, and fails at one of them, before or after it took effect."""

    def __init__(self, dies_at: int = -1, *, late: bool = False) -> None:
        self.calls: list[str] = []
        self._dies_at = dies_at
        self._late = late

    def early(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self._dies_at and not self._late:
            raise TargetUnavailable("cut off")

    def late(self) -> None:
        if len(self.calls) - 1 == self._dies_at and self._late:
            raise StoreUnavailable("cut off")


@dataclass
class Store:
    """Keeps the contract of ``SecretVersions``: labels move, and a promotion needs the version before."""

    script: Script
    values: dict[str, str] = field(default_factory=lambda: {"v0": FORMER})
    labels: dict[str, str] = field(default_factory=lambda: {"current": "v0"})
    drawn: Iterator[str] = field(default_factory=lambda: iter(("probe", FRESH, "probe-2", "fresh-2")))

    def current(self, reference: str) -> SecretVersion:
        self.script.early("current")
        self.script.late()
        return SecretVersion(id=self.labels["current"], value=Secret(self.values[self.labels["current"]]))

    def pending(self, reference: str) -> SecretVersion | None:
        self.script.early("pending")
        self.script.late()
        found = self.labels.get("pending")
        return None if found is None else SecretVersion(id=found, value=Secret(self.values[found]))

    def propose(self, reference: str, value: Secret) -> SecretVersion:
        self.script.early("propose")
        name = f"v{len(self.values)}"
        self.values[name] = value.expose()
        self.labels["pending"] = name
        self.script.late()
        return SecretVersion(id=name, value=value)

    def promote(self, reference: str, version: SecretVersion, before: SecretVersion) -> None:
        self.script.early("promote")
        if self.labels["current"] != before.id:
            raise StoreUnavailable("another version is current")
        self.labels["current"] = version.id
        self.script.late()  # the label that is left over is another call of AWS
        if self.labels.get("pending") == version.id:
            del self.labels["pending"]


@dataclass
class Server:
    """A target with one login; ``trusting`` asks for no password, ``keeps`` takes the former one for ever."""

    script: Script
    verifier: Verifier = field(default_factory=lambda: verifier_of(Secret(FORMER)))
    trusting: bool = False
    keeps: str = ""
    names: Sequence[str] = ()

    def takes(self, password: Secret) -> bool:
        self.script.early("takes")
        self.script.late()
        shown = password.expose()
        return self.trusting or (self.keeps != "" and shown == self.keeps) or matches(self.verifier, shown)

    def change(self, present: Secret, verifier: Verifier) -> None:
        self.script.early("change")
        if not matches(self.verifier, present.expose()):
            raise TargetUnavailable("refused", sqlstate="28P01")
        self.verifier = verifier
        self.script.late()

    def others(self, present: Secret) -> Sequence[str]:
        self.script.early("others")
        self.script.late()
        return self.names


def run(store: Store, server: Server, *, known: frozenset[str] = frozenset()) -> list[Told]:
    return list(rotate(store, REFERENCE, server, known, new=lambda: Secret(next(store.drawn))))


def statuses(told: Sequence[Told]) -> list[Status]:
    return [one.status for one in told]


def test_the_new_password_is_the_one_that_connections_get_and_the_former_is_refused() -> None:
    """The claim of P7, and the order that keeps it safe: tried before it is promoted."""
    script = Script()
    store, server = Store(script), Server(script)
    told = run(store, server)
    assert statuses(told) == [Status.OK] * 3, told
    assert store.values[store.labels["current"]] == FRESH
    assert matches(server.verifier, FRESH)
    assert tuple(script.calls) == STEPS
    assert FRESH not in str(told)
    assert FORMER not in str(told).replace("the former password", "")


@pytest.mark.parametrize("late", [False, True], ids=["before it took effect", "after it took effect"])
@pytest.mark.parametrize("step", range(len(STEPS)), ids=lambda step: f"{step}-{STEPS[step]}")
def test_a_run_that_is_cut_off_anywhere_is_finished_by_the_next(step: int, late: bool) -> None:
    """A password that only a dead process knew would lock everybody out of production."""
    script = Script(step, late=late)
    store, server = Store(script), Server(script)
    try:
        told = run(store, server)
    except AccessError:
        told = []
    assert not told or Status.WRONG in statuses(told) or step > STEPS.index("promote")
    kept = [store.values[version] for version in store.labels.values()]
    assert any(matches(server.verifier, value) for value in kept), "what the target takes is in the store"
    store.script = server.script = Script()
    again = run(store, server)
    assert statuses(again) == [Status.OK] * len(again), again
    assert matches(server.verifier, store.values[store.labels["current"]])


def test_a_target_that_takes_any_password_is_left_alone() -> None:
    """With `trust` a refusal shows nothing, and what is proposed would be taken for what it takes."""
    script = Script()
    store, server = Store(script), Server(script, trusting=True)
    (told,) = run(store, server)
    assert (told.status, script.calls) == (Status.WRONG, ["takes"])


def test_a_stored_password_that_is_wrong_changes_nothing() -> None:
    """Somebody changed it by hand: there is nothing to log in with, and nothing must look as if there were."""
    script = Script()
    store, server = Store(script, values={"v0": "stale"}), Server(script)
    (told,) = run(store, server)
    assert told.status is Status.WRONG
    assert "propose" not in script.calls


def test_a_former_password_that_still_logs_in_is_said_loudly() -> None:
    """Attack: whoever had it goes on past us, and enrolling would say that nobody can."""
    script = Script()
    told = run(Store(script), Server(script, keeps=FORMER))
    assert [one.what for one in told if one.status is Status.WRONG] == ["THE FORMER PASSWORD STILL LOGS IN"]


def test_logins_past_us_are_named_but_for_our_own() -> None:
    """P7: who else the target lets in. Twenty names fit a line; the count says how many there are."""
    script = Script()
    names = ["postgres (superuser)", "app", *(f"old{number}" for number in range(30))]
    told = run(Store(script), Server(script, names=names), known=frozenset({"app"}))[-1]
    assert told.status is Status.WARN
    assert told.what.startswith("31 other logins may come past us: postgres (superuser), old0, ")
    assert told.what.endswith("old18, 11 more")


def _target(name: str, *, port: int = 5432, login: str = "app", credential: str = REFERENCE) -> Target:
    principal = Principal(name=login, credential=credential)
    return replace(target_at(port), name=name, principals=(principal,), default_principal=login)


def test_two_databases_of_one_server_may_share_a_login_and_its_secret() -> None:
    """It is one password there: changed once, it is right for both."""
    ours = _target("orders-prod")
    refuse_shared([ours, _target("billing-prod")], ours, ours.principals)


@pytest.mark.parametrize("other", [{"port": 5433}, {"login": "report"}], ids=["another server", "another login"])
def test_a_secret_that_another_login_has_too_is_not_changed(other: dict[str, object]) -> None:
    """Changed at one, it would lock us out of the other."""
    ours, theirs = _target("orders-prod"), _target("billing-prod", **other)  # type: ignore[arg-type]
    with pytest.raises(Failure, match="shares its secret"):
        refuse_shared([ours, theirs], ours, ours.principals)
