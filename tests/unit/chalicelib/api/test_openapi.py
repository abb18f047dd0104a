"""The document: valid, complete, the same every time, and what is committed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import jsonschema_rs
import pytest
from aws_lambda_powertools import Logger
from schemathesis.specs.openapi.definitions import OPENAPI_31

from chalicelib.api.application import application
from chalicelib.api.edge import Plane
from chalicelib.api.endpoint import Endpoint, TokenCheck
from chalicelib.api.openapi import ENDPOINTS, document, document_text
from chalicelib.domain.errors import AccessError, leaf_errors

ROOT = Path(__file__).resolve().parents[4]


def _never() -> Plane:
    raise AssertionError("no request is made here")


def _served() -> set[tuple[str, str]]:
    app = application(_never, Logger(service="test-openapi", stream=io.StringIO()))
    return {(method, path) for path, methods in app.routes.items() for method in methods}


def test_the_document_is_valid_openapi_31() -> None:
    """By the specification's own schema: generators of clients refuse what is not."""
    assert not list(jsonschema_rs.validator_for(OPENAPI_31).iter_errors(json.loads(document_text())))


def test_every_schema_is_one() -> None:
    """The specification's schema looks no deeper than that a schema is an object."""
    whole = json.loads(document_text())
    for name in whole["components"]["schemas"]:
        jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": whole["components"]})


def test_every_route_is_in_the_document_and_the_other_way_round() -> None:
    """A route that nobody documents is not tested against the document; one that is not served is a lie."""
    documented = {(method.upper(), path) for path, item in document()["paths"].items() for method in item}
    assert documented == _served()


def test_no_endpoint_has_the_name_of_a_function() -> None:
    """Chalice keeps routes' views and functions in one map: of two of one name, one would never be called."""
    functions = set(
        re.findall(r'@app\.(?:lambda_function|schedule)\([^\n]*name="([a-z_]+)"', (ROOT / "app.py").read_text())
    )
    assert {"sign", "decide", "mint", "review"} <= functions
    names = [endpoint.name for endpoint in ENDPOINTS]
    assert len(set(names)) == len(names)
    assert not functions & set(names)


def test_the_committed_copy_is_what_is_declared() -> None:
    """Reviewers see a change of the contract in the change that makes it."""
    assert (ROOT / "docs/openapi.json").read_text() == document_text(), (
        "run: python -m chalicelib.api.openapi > docs/openapi.json"
    )


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_whoever_needs_a_token_is_told_so(endpoint: Endpoint) -> None:
    """A client is generated from it: without the scheme it would send nothing, and without the header no proof."""
    operation = document()["paths"][endpoint.path][endpoint.method.lower()]
    needs = endpoint.token is not TokenCheck.NONE
    assert operation["security"] == ([{"bearer": []}, {"dpop": []}] if needs else [])
    proved_otherwise = ("exchange_token", "slack_events", "approval_card", "answer_with_passkey")
    assert ("401" in operation["responses"]) == (needs or endpoint.name in proved_otherwise)
    headers = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "header"}
    assert ("DPoP" in headers) == (needs or endpoint.oauth)


def test_no_body_takes_a_field_that_is_not_there_or_null() -> None:
    """What was not read must not be believed; and null is neither a value nor an absence."""
    schemas = document()["components"]["schemas"]
    for endpoint in ENDPOINTS:
        if endpoint.body is None or endpoint.form:
            continue
        schema = schemas[endpoint.body.__name__]
        assert schema["additionalProperties"] is False
        assert '"null"' not in json.dumps(schema)


def test_no_endpoint_declares_what_cannot_happen_to_it() -> None:
    """Each kind is one of ours, and a kind's subclasses stand for themselves: a list that named all would say
    nothing."""
    for endpoint in ENDPOINTS:
        kinds = endpoint.all_refusals()
        assert len(set(kinds)) == len(kinds)
        assert set(kinds) <= set(leaf_errors())
        assert (AccessError in kinds) == (not endpoint.fixed)
