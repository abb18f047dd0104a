"""What things cost is reckoned from what is counted: requests are read rightly, and the page says what comes out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bench.calls import Call, Requests, call_of
from bench.costs import Unit, busy, limits, tables, unit_of
from bench.session_calls import Made, at_start

ROOT = Path(__file__).resolve().parents[2]
_PUT = b'{"TableName": "countersign-local-asks", "Item": {}}'
_GET_MANY = b'{"RequestItems": {"countersign-local-revocations": {"Keys": [{"id": 1}, {"id": 2}]}}}'


def request(service: str, first: str, body: bytes = b"", *more: str) -> bytes:
    """Return one signed request."""
    signed = (
        f"Authorization: AWS4-HMAC-SHA256 Credential=AKIAONE/20261123/eu-west-1/{service}/aws4_request, Signature=0"
    )
    head = "\r\n".join([f"{first} HTTP/1.1", signed, f"Content-Length: {len(body)}", *more])
    return f"{head}\r\n\r\n".encode() + body


WIRE = request("dynamodb", "POST /", _PUT, "X-Amz-Target: DynamoDB_20120810.PutItem", "amz-sdk-request: attempt=1")
WIRE += request("s3", "PUT /bucket/rec/ses_1/0000 ", b"segment\r\n\r\n of a recording")
WIRE += request("dynamodb", "POST /", _GET_MANY, "X-Amz-Target: DynamoDB_20120810.BatchGetItem")


@pytest.mark.parametrize("step", [1, 7, 64, len(WIRE)])
def test_requests_are_read_wherever_the_network_cuts_them(step: int) -> None:
    """A request that is missed, or read twice, would be a number in a bill."""
    heard: list[Call] = []
    requests = Requests(heard.append)
    for start in range(0, len(WIRE), step):
        requests.take(WIRE[start : start + step])
    assert [(one.service, one.operation, one.on, one.keys) for one in heard] == [
        ("dynamodb", "PutItem", "asks", 1),
        ("s3", "PUT", "rec", 1),
        ("dynamodb", "BatchGetItem", "revocations", 2),
    ]
    assert [one.size for one in heard] == [len(_PUT), 26, len(_GET_MANY)]


def test_what_is_sent_again_is_not_counted() -> None:
    """Else a slow machine would find that the code asks more than it does."""
    heard: list[Call] = []
    target = "X-Amz-Target: DynamoDB_20120810.PutItem"
    Requests(heard.append).take(request("dynamodb", "POST /", _PUT, target, "amz-sdk-request: attempt=2; max=3"))
    assert heard == []


@pytest.mark.parametrize(
    ("first", "operation", "on"),
    [
        ("GET /bucket?object-lock", "GET object-lock", ""),
        ("GET /bucket?list-type=2&prefix=items%2Fchains%2F", "list", "items"),
        ("PUT /bucket/manifests/one?retention", "PUT retention", "manifests"),
        ("HEAD /bucket/rec/one", "HEAD", "rec"),
    ],
)
def test_calls_on_the_bucket_are_named(first: str, operation: str, on: str) -> None:
    """S3 names its operations by method and query alone, and they differ tenfold in price."""
    call = call_of(request("s3", first).decode(), b"")
    assert (call.operation, call.on) == (operation, on)


def test_a_key_by_its_id_has_no_name() -> None:
    """Each deployment's differs, and the list of calls would never be the same twice."""
    body = b'{"KeyId": "1dffd80b-a16f-4138-a57a-dedd41d30459"}'
    head = request("kms", "POST /", body, "X-Amz-Target: TrentService.Sign").decode()
    assert call_of(head, body).on == "key"
    assert call_of(head, b'{"KeyId": "alias/countersign-local-kept"}').on == "kept"


def test_an_unsigned_request_is_refused() -> None:
    """Nobody's calls would be lost in nobody's name."""
    with pytest.raises(ValueError, match="not signed"):
        call_of("GET / HTTP/1.1\r\nHost: one", b"")


def test_units_are_charged_as_dynamodb_does() -> None:
    """A write by its KiB and its indexes, a batch by its keys; segments are reckoned by how long a session lasts."""
    calls = {
        "api dynamodb PutItem sessions": Made(calls=1, size=1100, keys=1),
        "api dynamodb UpdateItem sessions": Made(calls=2, size=1000, keys=1),
        "api dynamodb BatchGetItem revocations": Made(calls=3, size=600, keys=9),
        "broker s3 PUT rec": Made(calls=5, size=100, keys=1),
        "sign kms Sign key": Made(calls=2, size=400, keys=1),
    }
    assert unit_of(calls) == Unit(writes=2 + 2 + 2, reads=27, signatures=2)


def test_what_a_process_keeps_is_no_part_of_a_session() -> None:
    """The bundle is read once a process; a row is read each time."""
    assert at_start("mint s3 GET bundles")
    assert at_start("mint kms GetPublicKey token-before")
    assert not at_start("mint secretsmanager GetSecretValue targets/orders-prod/orders_app")


def test_more_sessions_never_cost_less() -> None:
    """What is bounded (waiting, batches) stops growing; nothing may shrink."""
    months = [busy(per_day) for per_day in (10, 1_000, 100_000)]
    for few, many in pairwise(months):
        assert all(few[name] <= many[name] for name in few)


def test_the_page_says_what_is_reckoned() -> None:
    """Whoever decides on the page decides on these numbers: ``python -m bench.costs`` prints them."""
    page = (ROOT / "docs" / "cost.md").read_text()
    for table in tables():
        assert table in page


def test_what_binds_first_is_first() -> None:
    """The page speaks of the order."""
    rates = [one.sessions for one in limits()]
    assert rates == sorted(rates)
    assert limits()[0].of.startswith("Slack")
