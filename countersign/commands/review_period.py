"""`countersign review --since WHEN`: every session of a period, on a target or of a pipeline.

Three answers: the review, whole and verified; with `--brief` a list from the tables alone; with `--population` every
session with what shows that it is every one, and with `--sample N --seed S` some that anybody else draws again. The
population's digest is what a reviewer signs: `countersign review sign`.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from countersign.commands.asking import Invocation
from countersign.evidence_source import Source, open_archive, open_deployment
from countersign.failures import Exit, Failure
from countersign.page_parts import About
from countersign.periods import period_of
from countersign.population_screen import population_screen
from countersign.printable import counted
from countersign.register_screen import listed_screen, period_screen
from countersign.report_files import new_file
from countersign.review_csv import write_csv
from countersign.review_page import review_page
from countersign.review_steps import steps_of
from countersign.trust import read_trust

if TYPE_CHECKING:
    from chalicelib.domain.signoff import Period, Selection
    from chalicelib.services.period_review import PeriodReview, ReviewedPeriod
    from chalicelib.services.population import Population
    from chalicelib.services.verify import TrustedKeys

_MOST_SAMPLE: Final = 10_000
_MOST_PROCESSES: Final = 64  # each has its own connections: more of them wait for DynamoDB and not for a core


def review_period(invocation: Invocation) -> int:
    """Return 0 where everything verifies or where nothing was to be verified (`--brief`), 65 where there is a finding,
    78 where nobody vouches for the keys. Raises Failure, AccessError, and ModuleNotFoundError without the extra."""
    from chalicelib.domain.signoff import Selection
    from chalicelib.services.at_once import READERS
    from chalicelib.services.population import ReadPopulation
    from chalicelib.services.verify import trusted_keys

    options = invocation.options
    _check(invocation)
    period = period_of(options.since, options.until, invocation.clock.now())
    selection = Selection(target=options.target, pipeline=options.pipeline)
    anchors = read_trust(options.trust) if options.trust else None
    source = open_archive("", invocation.settings.inherited, invocation.output)
    population = ReadPopulation(source.stores, readers=READERS)(period, selection)
    if options.brief:
        return _list(invocation, source, population)
    trusted = trusted_keys(source.evidence, anchors)
    if options.population or options.sample:
        return _population(invocation, source, population, trusted)
    return _review(invocation, source, population, trusted)


def _check(invocation: Invocation) -> None:
    options = invocation.options
    if sum(map(bool, (options.brief, options.population or options.sample))) > 1:
        raise Failure(Exit.USAGE, "--brief stands alone: --population and --sample read more than the tables")
    if (options.html or options.csv) and (options.brief or options.population or options.sample):
        raise Failure(Exit.USAGE, "--html and --csv are of a whole review")
    if options.processes and not (options.processes.isascii() and options.processes.isdigit()):
        raise Failure(Exit.USAGE, "--processes is a number")
    if options.processes and not 1 <= int(options.processes[:4]) <= _MOST_PROCESSES:
        raise Failure(Exit.USAGE, f"--processes is a number from 1 to {_MOST_PROCESSES}")
    if bool(options.sample) != bool(options.seed):
        raise Failure(Exit.USAGE, "--sample and --seed belong together", hint="The seed lets anybody draw the same.")
    if options.sample and not (options.sample.isascii() and options.sample.isdigit() and len(options.sample) < 6):
        raise Failure(Exit.USAGE, f"--sample is a number of sessions, at most {_MOST_SAMPLE}")


def _list(invocation: Invocation, source: Source, population: Population) -> int:
    from chalicelib.services.at_once import READERS
    from chalicelib.services.period_review import PeriodReview, listed_json
    from chalicelib.services.review import Review

    options, output = invocation.options, invocation.output
    review = Review(stores=source.stores, people=source.people, clock=invocation.clock)
    listing = PeriodReview(stores=source.stores, review=review, people=source.people, readers=READERS)
    found = listing.listed(population)
    findings = [str(finding) for finding in population.findings]
    sessions = [listed_json(one) for one in found]
    output.result({"verified": None, "findings": findings, "sessions": sessions})
    for line in listed_screen(population, found, output.paint, output.columns, every=options.all):
        output.line(line)
    return Exit.INVALID if findings else Exit.DONE


def _population(invocation: Invocation, source: Source, population: Population, trusted: TrustedKeys) -> int:
    from chalicelib.services.at_once import READERS
    from chalicelib.services.population import member_json, population_json, sample
    from chalicelib.services.signoffs import signoffs_of
    from chalicelib.services.verify import Anchor
    from chalicelib.services.witnesses import hourly_witness

    options, output = invocation.options, invocation.output
    witness = hourly_witness(source.stores.objects, trusted.keys, population, readers=READERS)
    signed, faults = signoffs_of(source.stores.objects, trusted.keys, population, invocation.clock.now())
    findings = tuple(dict.fromkeys((*trusted.findings, *population.findings, *witness.findings, *faults)))
    drawn = sample(population, int(options.sample), options.seed) if options.sample else ()
    told = {
        **population_json(population),
        "findings": [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in findings],
        "digests": [{"key": key, "sha256": sha256} for key, sha256 in witness.digests],
        "hours_without_digest": witness.hours_without,
        "signoffs": [dict(signoff.signed()) for signoff in signed],
        "verified": not findings,
    }
    if options.sample:
        told |= {"seed": options.seed, "sample": [member_json(member) for member in drawn]}
        if not options.population:
            del told["members"]
    output.result(told)
    for line in population_screen(
        population, witness, signed, findings, output.paint, every=options.all, drawn=drawn, seed=options.seed
    ):
        output.line(line)
    if findings:
        return Exit.INVALID
    return Exit.UNANCHORED if trusted.anchor is Anchor.NOBODY else Exit.DONE


def _review(invocation: Invocation, source: Source, population: Population, trusted: TrustedKeys) -> int:
    from dataclasses import replace

    from chalicelib.services.period_review import period_json
    from chalicelib.services.verify import Anchor

    options, output = invocation.options, invocation.output
    anchored = trusted.anchor is not Anchor.NOBODY
    found = _reviewing(invocation, source, population, trusted)(population, invocation.clock.now())
    found = replace(found, findings=tuple(dict.fromkeys((*trusted.findings, *found.findings))))
    _write(invocation, found, anchored=anchored)
    if output.as_json:  # of 10,000 sessions it is 100 MB of objects
        output.result(
            {**period_json(found), "verified": found.verified and anchored, "anchored_by": trusted.anchor.value}
        )
    for line in period_screen(found, output.paint, output.columns, every=options.all, anchored=anchored):
        output.line(line)
    output.line("")
    output.line(sign_hint(found.period, found.selection, found.population_sha256))
    if not found.verified:
        return Exit.INVALID
    return Exit.DONE if anchored else Exit.UNANCHORED


def _reviewing(invocation: Invocation, source: Source, population: Population, trusted: TrustedKeys) -> PeriodReview:
    """Return what reviews ``population``: in this process, or where that is quicker in some beside each other."""
    from chalicelib.services.anchors import known_keys
    from chalicelib.services.at_once import READERS
    from chalicelib.services.period_review import PeriodReview
    from chalicelib.services.review import Review
    from chalicelib.services.review_processes import Opening, ReviewProcesses, processes_for

    options, number = invocation.options, len(population.members)
    processes = int(options.processes) if options.processes else processes_for(number, os.cpu_count() or 1)
    at_once = f", {processes} processes at once" if processes > 1 else ""
    invocation.output.say(f"reading {counted(number, 'session')} back{at_once}")
    keys = known_keys(trusted.keys)
    opening = Opening(
        open_stores=partial(open_deployment, dict(invocation.settings.inherited)),
        people=source.people,
        keys=keys,
        clock=invocation.clock,
        readers=READERS,
    )
    return PeriodReview(
        stores=source.stores,
        review=Review(stores=source.stores, people=source.people, clock=invocation.clock, keys=keys),
        people=source.people,
        readers=READERS,
        apart=ReviewProcesses(opening, processes) if processes > 1 else None,
    )


def sign_hint(period: Period, selection: Selection, population_sha256: str) -> str:
    """Return the command with which a reviewer signs off what was shown. Safe to print."""
    from chalicelib.domain.canonical import timestamp
    from countersign.printable import safe_line

    words = ["countersign review sign", f"--since {timestamp(period.since)}", f"--until {timestamp(period.until)}"]
    words += [f"--target {selection.target}"] if selection.target else []
    words += [f"--pipeline '{selection.pipeline}'"] if selection.pipeline else []
    return f"sign it off: {safe_line(' '.join([*words, f'--digest {population_sha256}']))} --keep-others"


def _write(invocation: Invocation, found: ReviewedPeriod, *, anchored: bool) -> None:
    from chalicelib.domain.canonical import timestamp

    options, output = invocation.options, invocation.output
    if options.csv:
        with new_file(options.csv) as file:
            number = write_csv((step for chain in found.chains for step in steps_of(chain)), file)
        output.say(f"{number} steps are in {options.csv}")
    if options.html:
        since, until = timestamp(found.period.since), timestamp(found.period.until)
        words = [f"--since {since}", f"--until {until}"]
        words += [f"--target {found.selection.target}"] if found.selection.target else []
        words += [f"--pipeline '{found.selection.pipeline}'"] if found.selection.pipeline else []
        about = About(
            title=f"Access review: {found.selection.target or 'every target'}",
            facts=(
                ("period", f"from {since} until before {until}"),
                ("begun by", found.selection.pipeline or "anybody"),
                ("sessions", f"{found.sessions}, under {counted(len(found.chains), 'chain')}"),
                ("population", found.population_sha256),
            ),
            command=f"countersign review {' '.join(words)}",
            anchored=anchored,
            reviewed_at=found.reviewed_at,
        )
        with new_file(options.html) as file:
            file.write(review_page(about, found.chains, found.findings))
        output.say(f"the page is {options.html}")
