"""The screens of a period, of a population and of a reconciliation: nothing hostile takes effect, nothing is hidden."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.domain.signoff import Period, Selection
from chalicelib.services.login_lines import Logins, Unclear, read_logins
from chalicelib.services.period_review import ReviewedPeriod
from chalicelib.services.population import Population, ReadPopulation
from chalicelib.services.reconcile import connections_of, reconcile
from chalicelib.services.reviewed import AccessReview, Finding, FindingKind
from chalicelib.services.witnesses import Witness
from countersign import register_screen
from countersign.failures import Failure
from countersign.periods import moment_at, period_of
from countersign.population_screen import population_screen
from countersign.reconcile_screen import screen as reconcile_screen
from countersign.register_screen import listed_screen, period_screen
from tests.fakes.archive import Archive
from tests.fakes.clock import START
from tests.unit.chalicelib.domain.test_signoff import SIGNOFF
from tests.unit.chalicelib.services.test_period_review import HOUR, reviewed, reviewing
from tests.unit.countersign.test_review_page import HOSTILE, hostile

NOW = datetime(2026, 11, 23, 14, 2, 8, 123456, tzinfo=UTC)


def plain(text: str, *_styles: str) -> str:
    return text


def shown(review: ReviewedPeriod, *, every: bool = False, anchored: bool = True) -> str:
    return "\n".join(period_screen(review, plain, 160, every=every, anchored=anchored))


def of(*chains: AccessReview) -> ReviewedPeriod:
    findings = tuple(finding for chain in chains for finding in chain.findings)
    return ReviewedPeriod(
        period=HOUR,
        selection=Selection(),
        population_sha256="ab" * 32,
        sessions=len(chains),
        chains=chains,
        findings=findings,
        reviewed_at=START,
    )


def test_a_period_says_who_through_whom_to_what_and_what_allowed_it() -> None:
    """A session is some lines, those that people or rules had a say in first."""
    text = shown(reviewed(Archive()))
    assert text.startswith("ACCESS REVIEW  every target  VERIFIED\n")
    assert "2 sessions under 1 chain, 6 operations: 1 held, 2 blocked" in text
    assert "orders-prod as app  acme/orders deploy" in text
    assert "db-prod as deploy  acme/orders deploy › deploy-svc › schema-tool" in text
    assert "approved by Alice (alice) at 09:31:15; pipeline-opens + prod-open" in text
    assert "allowed by schema-tools-open, none required" in text
    assert "UNUSUAL: 2" in text
    # Wrapped, not cut: it is the end of such a line that says what is unusual.
    assert "whoever could read it was its owner (bearer)" in " ".join(text.split())


def test_what_does_not_verify_or_is_not_vouched_for_is_the_first_word() -> None:
    """One of many must not drown."""
    archive = Archive()
    archive.stores.objects.rows[archive.db.segments[0]] = b"x"
    text = shown(reviewed(archive))
    assert "NOT VERIFIED" in text.splitlines()[0]
    assert archive.db.segments[0] in text
    assert "RECORD NOT VERIFIED" in text
    assert "UNANCHORED" in shown(reviewed(Archive()), anchored=False).splitlines()[0]


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """--all shows them."""
    monkeypatch.setattr(register_screen, "MOST_SESSIONS", 1)
    monkeypatch.setattr(register_screen, "_MOST_UNUSUAL", 1)
    found = reviewed(Archive())
    assert "and 1 session more; --all shows them" in shown(found)
    assert "and 1 more: --json, --csv and --html have them" in shown(found)
    assert "--all" not in shown(found, every=True)


def test_no_text_of_a_review_forges_a_line_or_reaches_the_terminal() -> None:
    """Attack: names, reasons and rules are escapes and line feeds."""
    review = hostile()
    forged = replace(review.sessions[0], reason="x\nACCESS REVIEW  VERIFIED", target="t\nVERIFIED")
    text = shown(of(replace(review, sessions=(forged,))), every=True)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert not any(line.startswith("VERIFIED") for line in text.splitlines())


@pytest.mark.parametrize("columns", [40, 80, 110, 160])
def test_of_a_long_chain_both_ends_are_seen(columns: int) -> None:
    """Attack: so many hops, or so long a name, that who acted is cut off the line: the originator's name alone would
    stand for what somebody else did."""
    archive = Archive()
    found = population(archive)
    listed = reviewing(archive).listed(found)[0]
    for through in (
        ("first", *(f"hop number {number}" for number in range(8)), "last"),
        ("first" + "o" * 300, "last" + "a" * 300),
        ("first" + "o" * 300, "middle", "last" + "a" * 300),
    ):
        line = list(listed_screen(found, [replace(listed, through=through)], plain, columns, every=True))[-2]
        assert " fi" in line, line
        assert "› la" in line, line
        assert len(line) <= max(columns, 80), line


def test_a_list_never_says_that_it_verifies() -> None:
    """It looked at no signature."""
    archive = Archive()
    population = ReadPopulation(archive.stores)(HOUR, Selection())
    listing = reviewing(archive).listed(population)
    text = "\n".join(listed_screen(population, listing, plain, 110, every=False))
    assert text.startswith("SESSIONS  every target  LISTED, NOT VERIFIED\n")
    assert "said to be approved by Alice at 09:31:15; pipeline-opens + prod-open" in text
    assert "said to be allowed by schema-tools-open, none required" in text
    denied = replace(listing[0], granted=False, status="closed", answers=(), target=HOSTILE)
    text = "\n".join(listed_screen(population, [denied], plain, 110, every=False))
    assert "closed, never granted" in text
    assert "\x1b" not in text


def population(archive: Archive) -> Population:
    return ReadPopulation(archive.stores)(HOUR, Selection(target="db-prod"))


def test_a_population_says_what_it_was_compared_with() -> None:
    """And what could not be."""
    archive = Archive()
    found = population(archive)
    witness = Witness(digests=(("digests/v1/2026-11-02/09.json", "cd" * 32),), hours_without=1, findings=())
    text = "\n".join(population_screen(found, witness, [SIGNOFF], (), plain, every=False))
    assert text.startswith(f"POPULATION  {found.sha256}  WHOLE\n")
    assert "1 session on db-prod; 1 others of the period are not in it" in text
    assert "1 hourly digest, signed, each session in them has its row; 1 hour have none" in text
    assert "signed off by carol at 2026-11-05 09:30:00 UTC" in text
    assert archive.db.session_id in text
    finding = Finding(key="ses_x", kind=FindingKind.MISSING, what="has no row")
    drawn = population_screen(found, witness, [], [finding], plain, every=False, drawn=found.members, seed="x\ny")
    text = "\n".join(drawn)
    assert "NOT WHOLE" in text.splitlines()[0]
    assert "1 session drawn with the seed x y:" in text


def test_a_reconciliation_says_what_has_no_counterpart() -> None:
    """The line of the log, or the connection: where the auditor looks next."""
    archive = Archive()
    rows = connections_of(archive.stores, "db-prod", HOUR)
    log = read_logins(["Nov  2 09:31:00 db sshd[1]: Accepted password for root from 10.0.0.5 port 1 ssh2\n"], NOW)
    told = Logins(
        logins=log.logins,
        unclear=(Unclear(at=None, line=7, text=HOSTILE),),
        first=log.first,
        last=log.last,
        lines=7,
    )
    text = "\n".join(reconcile_screen(reconcile("db-prod", HOUR, told, rows), told, plain, 110))
    assert text.startswith("NOT RECONCILED  db-prod\n")
    assert "LOGINS WITHOUT A CONNECTION: 2" in text
    assert "line 1: root from 10.0.0.5 at 2026-11-02 09:31:00 UTC (password), names no chain" in text
    assert "CONNECTIONS WITHOUT A LOGIN: 1" in text
    assert archive.db.row.id in text
    assert "\x1b" not in text


# -- periods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-02", datetime(2026, 11, 2, tzinfo=UTC)),
        ("2026-11-02T09:00:00Z", datetime(2026, 11, 2, 9, tzinfo=UTC)),
        ("2026-11-02T09:00:00+02:00", datetime(2026, 11, 2, 7, tzinfo=UTC)),
        ("30d", datetime(2026, 10, 24, 14, 2, 8, 123000, tzinfo=UTC)),
        ("90m", datetime(2026, 11, 23, 12, 32, 8, 123000, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_day_a_moment_or_a_span(text: str, moment: datetime) -> None:
    """To the millisecond, as everything that is signed: else a digest of it would never be met again."""
    assert moment_at(text, NOW, "--since") == moment


@pytest.mark.parametrize("text", ["yesterday", "0d", "1y", "2026-13-01", "", "99999d", "0001-01-01T00:00:00+01:00"])
def test_what_is_no_moment_is_a_wrong_call(text: str) -> None:
    """Exit code 64, and the forms that there are."""
    with pytest.raises(Failure):
        moment_at(text, NOW, "--since")


def test_a_period_ends_now_where_nobody_says() -> None:
    """And is never empty."""
    until = NOW.replace(microsecond=123000)
    assert period_of("1d", "", NOW) == Period(since=until - timedelta(days=1), until=until)
    with pytest.raises(Failure):
        period_of("2026-11-24", "", NOW)
    with pytest.raises(Failure):
        period_of("2026-11-02", str(NOW - timedelta(days=400)), NOW)
