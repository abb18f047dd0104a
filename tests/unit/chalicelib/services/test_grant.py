"""What is served: a grant that nothing answers is refused when it is asked for, and not when it is used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.errors import PolicyDenied, TargetUnavailable
from chalicelib.domain.policy import Allow
from chalicelib.domain.target import Protocol
from chalicelib.services.access import stand_in
from chalicelib.services.grant import ENGINES, listening, require_served
from tests.fakes.control_plane import ControlPlane
from tests.unit.chalicelib.services.ssh_targets import BOUND, SSH_FILES

POSTGRES = stand_in("db")
ALLOWED = Allow(rules=("works",), masks=(), durable=False, record_full=False, bound=False)


@pytest.mark.parametrize("protocol", [Protocol.POSTGRES, Protocol.SSH])
def test_what_has_an_engine_is_served(protocol: Protocol) -> None:
    """These two, until the next engine is there."""
    require_served(replace(POSTGRES, protocol=protocol), ALLOWED, ENGINES)


@pytest.mark.parametrize("protocol", sorted(set(Protocol) - {Protocol.POSTGRES, Protocol.SSH}))
def test_what_has_no_engine_is_refused(protocol: Protocol) -> None:
    """A login that nothing answers looks like an outage of the target's."""
    with pytest.raises(TargetUnavailable):
        require_served(replace(POSTGRES, protocol=protocol), ALLOWED, ENGINES)


def test_what_this_deployment_does_not_listen_for_is_refused() -> None:
    """An engine that nobody started answers nobody."""
    ssh = replace(POSTGRES, protocol=Protocol.SSH)
    with pytest.raises(TargetUnavailable):
        require_served(ssh, ALLOWED, listening(ssh=False))
    require_served(ssh, ALLOWED, listening(ssh=True))
    require_served(POSTGRES, ALLOWED, listening(ssh=False))


def test_a_rule_that_wants_a_key_is_met_where_a_client_can_have_one() -> None:
    """PostgreSQL's clients know no key: a grant would be one that admission always refuses."""
    bound = replace(ALLOWED, bound=True)
    require_served(replace(POSTGRES, protocol=Protocol.SSH), bound, ENGINES)
    with pytest.raises(PolicyDenied):
        require_served(POSTGRES, bound, ENGINES)


def test_over_http_it_is_the_same() -> None:
    """One rule for both targets of an environment: ssh opens, PostgreSQL is told why not."""
    plane = ControlPlane(files=SSH_FILES)
    plane.bundles.activate(policy=SSH_FILES["policies/main.cedar"] + BOUND)
    assert plane.ask(plane.token(), "db-host").status_code == 201
    refused = plane.ask(plane.token(run_id="5002"), "orders-dev")
    assert (refused.status_code, refused.json_body["code"]) == (403, "policy_denied")
