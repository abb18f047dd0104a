"""What a deployment costs a month, and what binds it first: ``python -m bench.costs`` prints ``docs/cost.md``'s tables.

Calls are counted (``session_calls.json``, and what is said beside each number here), prices and quotas are AWS's lists
for us-east-1 as of November 2026, from memory and to be checked. A session here is approved by a click after a minute,
lasts ten, and has a statement each ten seconds, recorded whole: the dear case. Not in it: traffic out of AWS, support,
taxes, and what a customer has anyway (targets, a domain, the organisation's own trail).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.session_calls import Calls, declared

_ROOT: Final = Path(__file__).resolve().parent.parent
_INFRA: Final = _ROOT / "infra"
_POLICIES: Final = _ROOT / ".chalice" / "policies"
PER_DAY: Final = (10, 1_000, 100_000)
DAYS: Final = 30
HOURS: Final = 730
SECONDS: Final = HOURS * 3600

# Dollars each.
REQUEST: Final = 3.50e-6 + 0.60e-6  # API Gateway REST, and WAF before it
INVOCATION: Final = 0.20e-6
GB_S: Final = 1.33334e-5  # Lambda on arm64
WRITE_UNIT: Final = 0.625e-6  # DynamoDB on demand
READ_UNIT: Final = 0.125e-6
SIGNATURE: Final = 0.15 / 10_000  # KMS, asymmetric other than RSA 2048
DATA_KEY: Final = 0.03 / 10_000
SECRET_READ: Final = 0.05 / 10_000
PUT: Final = 0.005 / 1000
GET: Final = 0.0004 / 1000
DATA_EVENT: Final = 0.10 / 100_000  # CloudTrail, for each call on an object of the bucket
BUS_EVENT: Final = 1.00e-6
LOG_GB: Final = 0.50
OBJECT_GB_MONTH: Final = 0.023
ROW_GB_MONTH: Final = 0.25 + 0.20  # DynamoDB's storage, and its point-in-time recovery
TASK_HOUR: Final = 0.03238 + 2 * 0.00356  # Fargate on arm64: a vCPU and two GB, the module's size
BALANCER_HOUR: Final = 0.0225
ADDRESS_HOUR: Final = 0.005
FIREWALL: Final = 5 + 4 * 1.0  # a list and its rules
KEY: Final = 1.0
ALARM: Final = 0.10
METRIC: Final = 0.30
SECRET: Final = 0.40

# What a deployment has when nothing happens: infra/ at its defaults.
TASKS: Final = 2
ADDRESSES: Final = 4  # a task's and the balancer's in two zones
KEYS: Final = (
    7  # four that sign (token, answer, record, activation), and those of the bucket, of tables, of what is kept
)
INSIGHTS: Final = 20  # about: ECS's own metrics of a service, and the brokers' number of sessions
SECRETS: Final = 6
SESSIONS_PER_TASK: Final = 100  # autoscaling's target: sessions_per_task of infra/modules/broker
PEAK: Final = 3  # the busiest hour's share of an even day's

# What a session here has.
REQUESTS: Final = 4  # a token, the ask, the click, the answer; those of waiting are added
LASTS_S: Final = 600
SEGMENTS: Final = 63  # bench.recording_costs: ten minutes, a statement each ten seconds
WAITS_S: Final = 60
WAITERS: Final = 10  # COUNTERSIGN_WAITERS: past these callers come back each few seconds instead
COMES_BACK_S: Final = 3.5  # services.poll.retry_after_s, on average
LOOK_S: Final = 0.5
WAIT_S: Final = 5
LOOK_READS: Final = 13  # what one look reads: the session, its ask, answers, use, and nine keys of revocation
# Counted on the stack of bench.session_calls with pauses between the steps, so that nothing came together: the most.
CHANGE_BATCHES: Final = 14
LINE_BATCHES: Final = 8
STREAMS: Final = 9
WINDOW_S: Final = 5  # of the mapping of archive_items: a stream makes no batch more often
LINES_BYTES: Final = 30_000
OBJECT_BYTES: Final = 60_000  # segments, manifest, archived changes, events, the issuer's token
ROW_BYTES: Final = 20_000
ROW_INDEXES: Final = {"sessions": 2, "connections": 2, "asks": 1}  # infra/tables.json; each is another write
INVOKED: Final = 5  # sign, decide, mint, post_cards twice
INVOCATION_GB_S: Final = 0.2  # assumed: 200 ms at 1 GB; not measured on Lambda


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What the counted calls of something use, in what AWS charges by."""

    writes: int = 0
    reads: int = 0
    signatures: int = 0
    data_keys: int = 0
    secrets: int = 0
    puts: int = 0


def unit_of(calls: Calls) -> Unit:
    """Return what ``calls`` use. A write is charged by the KiB of its row, which its request's body is taken for, and
    once for each index of a new row; a read is a unit, since rows are below 4 KiB. Pure."""
    used = dict.fromkeys(Unit.__dataclass_fields__, 0)
    for kind, made in calls.items():
        _role, service, operation, *on = kind.split(" ")
        match service, operation:
            case "dynamodb", "PutItem":
                used["writes"] += made.calls * (math.ceil(made.size / 1024) + ROW_INDEXES.get(on[0], 0))
            case "dynamodb", "UpdateItem":  # a connection that ends leaves the index of what is open
                used["writes"] += made.calls * (math.ceil(made.size / 1024) + (on[0] == "connections"))
            case "dynamodb", _:
                used["reads"] += made.calls * made.keys
            case "kms", "Sign":
                used["signatures"] += made.calls
            case "kms", _:
                used["data_keys"] += made.calls
            case "secretsmanager", _:
                used["secrets"] += made.calls
            case "s3", "PUT" if on != ["rec"]:
                used["puts"] += made.calls
    return Unit(**used)


def alarms_and_metrics() -> tuple[int, int]:
    """Return how many alarms and how many metrics of its own a deployment has, as they are declared in ``infra``."""
    declared_alarms: dict[str, dict[str, str]] = json.loads((_INFRA / "alarms" / "alarms.json").read_text())
    many = {"": 1, "functions": len(list(_POLICIES.glob("*.json"))), "target_groups": 2}
    alarms = sum(many[alarm.get("each", "")] for alarm in declared_alarms.values())
    return alarms, len(json.loads((_INFRA / "alarms" / "log_metrics.json").read_text())) + INSIGHTS


def idle() -> Mapping[str, float]:
    """Return dollars a month while nothing happens, by what they are for. Pure."""
    # Each second a broker reads the epoch, each ten the configuration, each twenty it says that it lives; of its events
    # there is an object each ten seconds at most.
    brokers = TASKS * SECONDS * (READ_UNIT * 1.1 + WRITE_UNIT / 20 + (PUT + DATA_EVENT) / 10)
    scheduled = SECONDS / 60 * 1.5 * (INVOCATION + INVOCATION_GB_S * GB_S)  # reconcile each minute, sweep each two
    alarms, metrics = alarms_and_metrics()
    return {
        "brokers (two tasks)": TASKS * HOURS * TASK_HOUR,
        "balancer and public addresses": HOURS * (BALANCER_HOUR + ADDRESSES * ADDRESS_HOUR),
        "metrics and alarms": metrics * METRIC + alarms * ALARM,
        "firewall": FIREWALL,
        "keys and secrets": KEYS * KEY + SECRETS * SECRET,
        "what brokers and schedules read and write": brokers + scheduled,
    }


def busy(per_day: int) -> Mapping[str, float]:
    """Return dollars a month that so many sessions a day add, by what they are for. Pure."""
    sessions = per_day * DAYS
    unit = unit_of(declared()["session"])
    changes = min(sessions * CHANGE_BATCHES, STREAMS * SECONDS / WINDOW_S)
    lines = sessions * LINE_BATCHES
    waited_s = min(sessions * WAITS_S, WAITERS * SECONDS)
    polls = (sessions * WAITS_S - waited_s) / COMES_BACK_S  # of those for whom there was no place
    objects = sessions * (unit.puts + SEGMENTS) + changes + lines
    at_once = per_day * LASTS_S / 86_400 * PEAK  # and as many tasks all day, since the wave is not known here
    more_tasks = max(0, math.ceil(at_once / SESSIONS_PER_TASK) - TASKS)
    return {
        "recording, archive (S3 and its trail)": objects * (PUT + DATA_EVENT)
        + sessions * SEGMENTS * (GET + DATA_EVENT)  # each is looked for after it was put
        + sessions * OBJECT_BYTES / 1e9 * OBJECT_GB_MONTH,
        "KMS": sessions * (unit.signatures * SIGNATURE + unit.data_keys * DATA_KEY),
        "functions": (sessions * INVOKED + changes + lines) * (INVOCATION + INVOCATION_GB_S * GB_S)
        + sessions * REQUESTS * (INVOCATION + INVOCATION_GB_S * GB_S),
        "waiting for people": waited_s * GB_S
        + waited_s / WAIT_S * (REQUEST + INVOCATION)
        + waited_s / LOOK_S * LOOK_READS * READ_UNIT
        + polls * (REQUEST + INVOCATION + INVOCATION_GB_S * GB_S + LOOK_READS * READ_UNIT),
        "DynamoDB": sessions * (unit.writes * WRITE_UNIT + unit.reads * READ_UNIT)
        + sessions * ROW_BYTES / 1e9 * ROW_GB_MONTH,
        "logs and events": sessions * (LINES_BYTES / 1e9 * LOG_GB + LINE_BATCHES * BUS_EVENT),
        "API and firewall": sessions * REQUESTS * REQUEST,
        "secrets": sessions * unit.secrets * SECRET_READ,
        "more brokers": more_tasks * HOURS * (TASK_HOUR + ADDRESS_HOUR),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A quota, as a rate: ``each`` of it is what one session takes, ``a_second`` is what there is."""

    of: str
    a_second: float
    each: float
    way_out: str

    @property
    def sessions(self) -> float:
        """Sessions a second at which it is used up."""
        return self.a_second / self.each


def limits() -> list[Limit]:
    """Return what binds, the first first, where every session is approved by a click. Pure."""
    unit = unit_of(declared()["session"])
    requests = REQUESTS + WAITS_S / COMES_BACK_S
    found = [
        Limit(of="Slack: updates of cards, 50 a minute", a_second=50 / 60, each=1, way_out="the approval page; rules"),
        Limit(of="Slack: one message a second in a channel", a_second=1, each=1, way_out="the same"),
        Limit(
            of="API function: 50 at once, of 0.2 s",
            a_second=(50 - WAITERS) / 0.2,
            each=requests,
            way_out="its reserved concurrency",
        ),
        Limit(
            of="Lambda: 1,000 at once in an account, of 0.2 s",
            a_second=1000 / 0.2,
            each=requests + INVOKED + CHANGE_BATCHES + LINE_BATCHES,
            way_out="quota",
        ),
        Limit(of="API Gateway: 10,000 requests a second", a_second=10_000, each=requests, way_out="quota"),
        Limit(of="KMS: 1,000 ECC signatures a second", a_second=1000, each=unit.signatures, way_out="quota"),
        Limit(
            of="DynamoDB: 1,000 writes a second in an index's one partition",
            a_second=1000,
            each=2,
            way_out="a change of code",
        ),
        Limit(
            of="S3: 3,500 puts a second under a prefix",
            a_second=3500,
            each=SEGMENTS,
            way_out="S3 splits it by itself, in minutes",
        ),
        Limit(
            of="NLB: 55,000 connections a minute to one task",
            a_second=TASKS * 55_000 / 60,
            each=1,
            way_out="more tasks",
        ),
    ]
    return sorted(found, key=lambda one: one.sessions)


def tables() -> Iterator[str]:
    """Yield the tables of ``docs/cost.md`` as Markdown."""
    yield "\n".join(["| a month, idle | $ |", "|---|---|", *_rows({name: [cost] for name, cost in idle().items()})])
    months = [busy(per_day) for per_day in PER_DAY]
    columns = " | ".join(f"{per_day:,} a day" for per_day in PER_DAY)
    lines = _rows({name: [month[name] for month in months] for name in months[0]})
    whole = [sum(month.values()) + sum(idle().values()) for month in months]
    each = [sum(month.values()) / (per_day * DAYS) for month, per_day in zip(months, PER_DAY, strict=True)]
    yield "\n".join(
        [
            f"| sessions | {columns} |",
            "|---" * (len(PER_DAY) + 1) + "|",
            *lines,
            f"| **all, with idle** | {' | '.join(f'**{cost:,.0f}**' for cost in whole)} |",
            f"| a session, without idle | {' | '.join(f'{cost:.4f}' for cost in each)} |",
        ]
    )
    bounds = [f"| {one.of} | {one.sessions:,.1f} | {one.way_out} |" for one in limits()]
    yield "\n".join(["| quota | sessions a second | way out |", "|---|---|---|", *bounds])


def _rows(costs: Mapping[str, list[float]]) -> list[str]:
    lines = [f"| {name} | {' | '.join(f'{cost:,.2f}' for cost in row)} |" for name, row in costs.items()]
    if all(len(row) == 1 for row in costs.values()):
        lines.append(f"| **all** | **{sum(row[0] for row in costs.values()):,.2f}** |")
    return lines


if __name__ == "__main__":
    print("\n\n".join(tables()))  # noqa: T201 its output is the tables
