"""One ``SELECT 1`` through the broker, policy and recording on, against the same straight to the server."""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import psycopg

from bench.harness import Row, compare
from dev.demo.slack import Approvers
from dev.local_stack import Stack, StackOptions
from dev.settings import SystemClock
from dev.targets import ORDERS

STATEMENTS = 400  # in one run: a tenth of a second direct, long enough for the scheduler to even out
ROUND_TRIP_RATIO = 15.0  # TLS, a parse, a decision and a record, on a statement that costs the server nothing


def _call(url: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(url, data=body, headers=dict(headers))  # noqa: S310 - the stack's own addresses
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return dict(json.load(answer))


def _session(stack: Stack) -> dict[str, Any]:
    """Return ``connect`` of an approved session."""
    ready = stack.ready
    minted = _call(ready["issuer"]["mint"], b"{}", {"Content-Type": "application/json"})["token"]
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": minted,
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
    }
    token = _call(f"{ready['api']}/v1/token", urlencode(form).encode(), {})["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": "bench"}
    body = json.dumps({"target": ORDERS, "reason": "bench", "duration_s": 900}).encode()
    session = _call(f"{ready['api']}/v1/sessions", body, headers)
    if session["status"] == "pending":
        approvers = Approvers(ready["slack"], SystemClock())
        approvers.click(approvers.next_card(), "Approve", ready["slack"]["approvers"][0])
        session = _call(f"{ready['api']}/v1/sessions", body, headers)
    return dict(session["connect"])


def _median_us(connection: psycopg.Connection[Any]) -> float:
    """Return the median round trip of ``SELECT 1`` in microseconds."""
    took: list[float] = []
    for _ in range(STATEMENTS):
        started = time.perf_counter()
        connection.execute("SELECT 1").fetchone()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e6


def _measured(connection: psycopg.Connection[Any]) -> Callable[[], float]:
    _median_us(connection)  # once unmeasured: caches of both sides are warm in every run that counts
    return lambda: _median_us(connection)


def rows() -> list[Row]:
    """Return the row of one statement's round trip."""
    with Stack(StackOptions()) as stack:
        connect = _session(stack)
        target = stack.ready["targets"][ORDERS]
        with (
            psycopg.connect(
                host=connect["host"],
                port=connect["port"],
                user=connect["user"],
                password=connect["secret"],
                dbname=connect["database"],
                sslmode="verify-full",
                sslrootcert=stack.ready["broker"]["postgres"]["ca_file"],
                autocommit=True,
            ) as ours,
            psycopg.connect(
                host=target["host"],
                port=target["port"],
                dbname=target["database"],
                autocommit=True,
                user=target["admin"]["user"],
                password=target["admin"]["password"],
            ) as direct,
        ):
            return [
                compare(
                    "SELECT 1 through the broker, median",
                    "us",
                    _measured(ours),
                    "direct",
                    _measured(direct),
                    f"at most {ROUND_TRIP_RATIO:g} x direct, with TLS, policy and recording",
                    ROUND_TRIP_RATIO,
                )
            ]
