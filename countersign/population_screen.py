"""A population as text: how many sessions, what they were compared with, who signed them off, and those drawn.

Rules: texts pass ``printable``; what could not be compared is said, never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Final

from countersign.printable import counted, safe_line
from countersign.register_screen import finding_lines
from countersign.review_operations import day_of

if TYPE_CHECKING:
    from chalicelib.domain.signoff import Signoff
    from chalicelib.services.population import Member, Population
    from chalicelib.services.reviewed import Finding
    from chalicelib.services.witnesses import Witness

Paint = Callable[..., str]
_MOST_MEMBERS: Final = 40


def population_screen(
    population: Population,
    witness: Witness,
    signed: Sequence[Signoff],
    findings: Sequence[Finding],
    paint: Paint,
    *,
    every: bool,
    drawn: Sequence[Member] = (),
    seed: str = "",
) -> Iterator[str]:
    """Give the lines."""
    state = paint("NOT WHOLE", "red", "bold") if findings else paint("WHOLE", "green", "bold")
    yield f"{paint('POPULATION', 'bold')}  {population.sha256}  {state}"
    period, selection = population.period, population.selection
    yield paint(f"asked for from {day_of(period.since)} until before {day_of(period.until)}", "dim")
    on = safe_line(selection.target) if selection.target else "every target"
    begun = f", begun by {safe_line(selection.pipeline)}" if selection.pipeline else ""
    others = f"; {population.others} others of the period are not in it" if population.others else ""
    yield f"  {counted(len(population.members), 'session')} on {on}{begun}{others}"
    yield f"  {counted(population.connections, 'connection')} of the period, each broker's counted without holes"
    yield f"  {counted(population.manifests, 'manifest')} in the bucket, each of a session and connection with a row"
    without = f"; {counted(witness.hours_without, 'hour')} have none" if witness.hours_without else ""
    if witness.digests:
        yield f"  {counted(len(witness.digests), 'hourly digest')}, signed, each session in them has its row{without}"
    else:
        yield paint("  no hourly digest yet: nothing would show a session that was removed with all its rows", "yellow")
    if population.unsealed:
        what = counted(population.unsealed, "connection")
        yield paint(f"  {what} had not ended: the digest changes when they do", "yellow")
    yield from finding_lines(findings, paint)
    for signoff in signed:
        yield from _signoff(signoff)
    if drawn:
        yield ""
        yield f"{counted(len(drawn), 'session')} drawn with the seed {safe_line(seed)}:"
    shown = drawn or (population.members if every else population.members[:_MOST_MEMBERS])
    for member in shown:
        session = member.session
        at = f"{session.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        yield f"  {at}  {safe_line(session.id)}  {member.sha256}  {safe_line(session.request.target)}"
    left = 0 if drawn else len(population.members) - len(shown)
    if left:
        yield paint(f"  and {counted(left, 'session')} more; --all or --json shows them", "dim")


def _signoff(signoff: Signoff) -> Iterator[str]:
    revoked = [ruling for ruling in signoff.rulings if not ruling.keep]
    decided = f"keeps {len(signoff.rulings) - len(revoked)}, revokes {len(revoked)}"
    yield f"  signed off by {safe_line(signoff.reviewer)} at {day_of(signoff.signed_at)} ({signoff.id}): {decided}"
