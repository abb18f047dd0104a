"""`countersign doctor`: looks at a deployment from here and says what is wrong and what to do.

Anybody may look at the API and the broker's doors; with AWS credentials, and the deployment named (COUNTERSIGN_PREFIX,
COUNTERSIGN_BUCKET, AWS_REGION), it looks at tables, buckets, keys and what runs. Nothing is changed anywhere, and
nothing secret is printed. Exit codes: 0 where nothing is wrong, 1 where something is; a warning, and what could not be
looked at, are said and fail nothing, but with ``--strict``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from chalicelib.domain.errors import AccessError, ConfigurationInvalid
from countersign.address import parse_address
from countersign.commands.asking import Invocation
from countersign.doctor.checks import Check, Result, Status, Told, look_at_all, unknown
from countersign.doctor.service import ServiceChecks
from countersign.failures import Exit, Failure
from countersign.output import Output
from countersign.printable import counted

if TYPE_CHECKING:
    from countersign.doctor.working import WorkChecks

_COLOURS: Final = {Status.OK: "green", Status.WARN: "yellow", Status.WRONG: "red", Status.UNKNOWN: "cyan"}
_WIDEST: Final = 22  # "unsealed connections" and a gap


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--targets", action="store_true", help="also try every target's address and host key from here")
    parser.add_argument("--strict", action="store_true", help="fail on warnings, and on what could not be looked at")


def doctor(invocation: Invocation) -> int:
    """Return 0, or 1 where something is wrong. Raises Failure (usage) where nothing is named to look at."""
    settings, output = invocation.settings, invocation.output
    told = settings.inherited
    checks: list[Check] = []
    if settings.api:
        address = parse_address(settings.api, "the address of Countersign (COUNTERSIGN_API, --api)")
        checks += ServiceChecks(address, told, invocation.clock).checks()
    elif not told.get("COUNTERSIGN_PREFIX"):
        raise Failure(
            Exit.USAGE,
            "nobody said which deployment to look at",
            hint="Set COUNTERSIGN_API (or --api); for AWS also COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET, AWS_REGION.",
        )
    checks += _in_aws(invocation)
    results = look_at_all(checks, invocation.clock)
    show(results, output)
    bad = {Status.WRONG, Status.WARN, Status.UNKNOWN} if invocation.options.strict else {Status.WRONG}
    return Exit.WRONG if any(one.status in bad for result in results for one in result.told) else Exit.DONE


def _in_aws(invocation: Invocation) -> list[Check]:
    """Return the checks of what is in AWS; one that says why where they cannot be made."""
    try:
        return _aws_checks(invocation)
    except (ModuleNotFoundError, AccessError) as error:
        return [Check(name="aws", look=partial(_stopped_by, error))]


def _stopped_by(error: Exception) -> Iterable[Told]:
    raise error


def _aws_checks(invocation: Invocation) -> list[Check]:
    from chalicelib.settings import read_store_settings
    from chalicelib.store.opened import open_stores
    from countersign.doctor.deployment import DeploymentChecks
    from countersign.doctor.working import WorkChecks

    told = invocation.settings.inherited
    try:
        settings = read_store_settings(told)
    except ConfigurationInvalid as error:
        what = f"tables, buckets, keys, functions, digests: {error.public}"
        fix = "Set COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET, AWS_REGION and an operator's AWS credentials."
        return [Check(name="aws", look=lambda: (unknown(what, fix),))]
    stores = open_stores(settings)
    work = WorkChecks(stores, told, invocation.clock, prefix=settings.prefix)
    checks = [*DeploymentChecks(stores, settings).checks(), *work.checks()]
    return checks + (_targets(work, told) if invocation.options.targets else [])


def _targets(work: WorkChecks, told: Mapping[str, str]) -> list[Check]:
    from countersign.doctor.working import targets_of

    try:
        return targets_of(work, told)
    except AccessError as error:
        return [Check(name="targets", look=partial(_stopped_by, error))]


def show(results: list[Result], output: Output) -> None:
    """Print every finding with what to do; as one object with --json."""
    counts = {status: sum(one.status is status for result in results for one in result.told) for status in Status}
    output.result(
        {
            "wrong": counts[Status.WRONG],
            "checks": [
                {"check": result.name, "status": one.status.value, "what": one.what, "fix": one.fix}
                for result in results
                for one in result.told
            ],
        }
    )
    for result in results:
        for one in result.told:
            output.line(
                f"{output.paint(f'{one.status.value:<16}', _COLOURS[one.status])}{result.name:<{_WIDEST}}{one.what}"
            )
            if one.fix:
                output.line(f"{'':<16}{'':<{_WIDEST}}{output.paint(one.fix, 'dim')}")
    told = [f"{counts[Status.WRONG]} wrong", counted(counts[Status.WARN], "warning"), f"{counts[Status.OK]} ok"]
    output.line(", ".join([*told, f"{counts[Status.UNKNOWN]} could not be looked at"]))
