"""Bundle files for configuration tests: a small valid bundle, in which a test replaces what it is about."""

from __future__ import annotations

from typing import Final

from chalicelib.config.bundle import Bundle
from chalicelib.config.loader import load_bundle
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.problem import Problem, problems_of
from chalicelib.policy.engine import compile_policy

TARGETS: Final = """\
targets:
  db:
    protocol: postgres
    environment: prod
    description: A database
    host: 127.0.0.1
    port: 5432
    database: orders
    principals:
      app: {credential: team/db/app}
    default_principal: app
    plaintext: true
"""
ISSUERS: Final = """\
issuers:
  ci:
    kind: github
    audience: https://api.example
    require: {repository_owner_id: ["9001"]}
    teams:
      - {team: pipeline, when: {repository_id: "7"}}
"""
APPROVERS: Final = """\
groups: {dba: Databases}
people:
  alice: {name: Alice, groups: [dba], slack: {team: T0AAA, user: U0AAA}, aliases: [gh:actor_id:1]}
  bob: {name: Bob, groups: [], slack: {team: T0AAA, user: U0BBB}}
"""
MASKING: Final = """\
masks:
  email: {mode: redact, columns: [public.customers.email]}
"""
POLICY: Final = """\
@id("works") permit (principal in Team::"pipeline", action, resource == Target::"db");
@id("dba") @requires("approval:dba:1;mask:email")
forbid (principal, action, resource in Env::"prod") unless { context.met.contains("dba") };
"""


def files(**replaced: str | bytes | None) -> dict[str, bytes]:
    """The valid files; a keyword (targets, issuers, approvers, masking, policy) replaces one, None leaves it out."""
    texts: dict[str, str | bytes | None] = {
        "targets.yaml": TARGETS,
        "issuers.yaml": ISSUERS,
        "approvers.yaml": APPROVERS,
        "masking.yaml": MASKING,
        "policies/main.cedar": POLICY,
    }
    for name, text in replaced.items():
        texts["policies/main.cedar" if name == "policy" else f"{name}.yaml"] = text
    return {name: text.encode() if isinstance(text, str) else text for name, text in texts.items() if text is not None}


def load(given: dict[str, bytes]) -> Bundle:
    return load_bundle(given, compile_policy)


def problems(given: dict[str, bytes]) -> tuple[Problem, ...]:
    """What is wrong with ``given``; empty where it loads."""
    try:
        load(given)
    except ConfigurationInvalid as error:
        return problems_of(error, file="?")
    return ()


def only(given: dict[str, bytes]) -> Problem:
    found = problems(given)
    assert len(found) == 1, [problem.text() for problem in found]
    return found[0]
