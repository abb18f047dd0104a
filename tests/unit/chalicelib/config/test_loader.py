"""Loading a bundle: what it becomes, and everything that refuses it, each with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.config.files import read_directory
from chalicelib.domain.identity import Person
from chalicelib.domain.target import Principal, Protocol
from tests.fakes.passkey import SoftPasskey
from tests.unit.chalicelib.config.bundles import (
    APPROVERS,
    ISSUERS,
    MASKING,
    POLICY,
    TARGETS,
    files,
    load,
    only,
    problems,
)

DEMO = Path(__file__).parents[4] / "dev/demo/bundle"
CERTIFICATE = (Path(__file__).parent / "authority.pem").read_text()


def test_a_bundle_becomes_what_its_files_say() -> None:
    """Each file's own part, with defaults filled in."""
    bundle = load(files())
    target = bundle.targets["db"]
    assert (target.protocol, target.environment, target.port) == (Protocol.POSTGRES, "prod", 5432)
    assert target.principals == (Principal(name="app", credential="team/db/app"),)
    assert (target.search_path, target.max_connections, target.durable) == (("public",), 4, False)
    assert bundle.person_in_slack("T0AAA", "U0AAA") == bundle.people[0]
    assert bundle.people_behind(("gh:actor_id:1",)) == (bundle.people[0],)
    assert bundle.people[1] == Person(
        id=bundle.people[1].id, name="Bob", groups=(), slack_team="T0AAA", slack_user="U0BBB", aliases=()
    )
    assert [rule.table for rule in bundle.masks["email"].columns] == ["customers"]
    assert bundle.serial == 0


def test_the_demo_bundle_loads() -> None:
    """It is the first that a newcomer reads, and `make demo` runs on it."""
    bundle = load(read_directory(DEMO))
    assert set(bundle.targets) == {"orders-prod", "db-prod"}
    assert {person.slack_user for person in bundle.people} == {"UALICE", "UBOB", "UCAROL", "UDAVE"}


def test_the_github_preset_rests_on_ids() -> None:
    """Names may change hands; what outsiders start is refused; a re-run's starter is not known."""
    issuer = load(files()).issuers[0]
    assert issuer.url == "https://token.actions.githubusercontent.com"
    assert issuer.jwks_uri == "https://token.actions.githubusercontent.com/.well-known/jwks"
    assert issuer.subject == ("repository_owner_id", "repository_id")
    assert issuer.run == ("run_id", "run_attempt", "check_run_id")
    assert issuer.accountable == (("gh:actor_id", "actor_id"),)
    assert "pull_request_target" in dict(issuer.forbid)["event_name"]
    assert "2" in dict(issuer.unknown_trigger)["run_attempt"]
    assert "1" not in dict(issuer.unknown_trigger)["run_attempt"]
    assert not set(issuer.keep) & set(issuer.ignore)
    more = files(issuers=ISSUERS + "    forbid: {event_name: [push]}\n")
    forbidden = [value for claim, values in load(more).issuers[0].forbid if claim == "event_name" for value in values]
    assert {"push", "pull_request"} <= set(forbidden), "the author's own come beside the preset's, never instead"


def test_a_server_that_names_no_job_may_begin_a_chain_with_each_run() -> None:
    """GitHub Enterprise Server: without the claim every token would be refused."""
    text = ISSUERS.replace("kind: github", "kind: github\n    root: run")
    assert load(files(issuers=text)).issuers[0].run == ("run_id", "run_attempt")


def test_everything_wrong_is_told_at_once() -> None:
    """Five files with a mistake each are corrected in one go."""
    found = problems(
        files(
            targets=TARGETS.replace("5432", "0"),
            issuers=ISSUERS.replace("kind: github", "kind: githug"),
            approvers=APPROVERS.replace("U0BBB", "bob"),
            masking=MASKING.replace("redact", "hide"),
            policy=POLICY.replace("@id(", "@name("),
        )
    )
    assert {(problem.file, problem.line) for problem in found} == {
        ("targets.yaml", 7),
        ("issuers.yaml", 3),
        ("approvers.yaml", 4),
        ("masking.yaml", 2),
        ("policies/main.cedar", 1),
        ("policies/main.cedar", 2),
    }
    assert all(problem.remedy for problem in found)


@pytest.mark.parametrize("name", ["targets", "issuers", "approvers", "masking", "policy"])
def test_a_missing_file_refuses(name: str) -> None:
    """Half a bundle must not become active: without masking.yaml nothing would be masked."""
    found = problems(files(**{name: None}))
    assert any("missing" in problem.message or "no policy file" in problem.message for problem in found)


@pytest.mark.parametrize(
    "name", ["target.yaml", "policies/Main.cedar", "policies/a/b.cedar", "x.cedar", "secrets.yaml"]
)
def test_an_unknown_file_refuses(name: str) -> None:
    """A forbid in a file that nobody reads would be no forbid."""
    assert only({**files(), name: b""}).file == name


@pytest.mark.parametrize(
    ("changed", "line", "says", "remedy"),
    [
        (TARGETS + "    pasword: x\n", 13, "nobody knows this key", "Known here"),
        (TARGETS.replace("host:", "hots:"), 6, "nobody knows this key", "Did you mean 'host'?"),
        (TARGETS.replace("    port: 5432\n", ""), 2, "port is missing", "Add it: Its TCP port"),
        (TARGETS.replace("5432", '"5432"'), 7, "valid integer", "TCP port"),
        (TARGETS.replace("true", "yes"), 12, "valid boolean", "without TLS"),
        (TARGETS.replace("postgres", "mysql"), 3, "none of: postgres, ssh", "Write protocol"),
        (TARGETS.replace("default_principal: app", "default_principal: root"), 11, "not one of", "Name one of: app"),
        (TARGETS.replace("team/db/app", "hunter2"), 10, "pattern", "Never the secret itself"),
        (TARGETS.replace("team/db/app", "AKIAIOSFODNN7EXAMPLE/x"), 10, "looks like a secret", "replace it"),
        (TARGETS.replace("team/db/app", '"xoxb-1/2"'), 10, "looks like a secret", "replace it"),
        (TARGETS + "    search_path: [pg_temp, public]\n", 13, "pg_temp", "Leave it out"),
        (TARGETS.replace("127.0.0.1", "10.0.0.1"), 12, "plaintext to '10.0.0.1'", "Use TLS"),
        (TARGETS.replace("127.0.0.1", "localhost"), 12, "plaintext to 'localhost'", "Use TLS"),
        (TARGETS.replace("plaintext: true", "plaintext: false"), 2, "no certificate", "PEM"),
        (TARGETS.replace("plaintext: true", "ca_pem: nonsense"), 12, "no certificate", "PEM"),
        (TARGETS.replace("plaintext: true", "ca_pem: -----BEGIN PRIVATE KEY-----"), 12, "no certificate", "no key"),
        (TARGETS + "    ca_pem: x\n", 13, "verifies nothing", "Keep one"),
        (TARGETS + "    max_session_s: 10\n", 13, "greater than or equal to 60", "longest session"),
        ("targets: {}\n", 1, "at least 1", "Each target"),
        (TARGETS.replace("  db:", "  Db:"), 2, "pattern", ""),
    ],
)
def test_a_wrong_target_refuses(changed: str, line: int, says: str, remedy: str) -> None:
    """Each with the line and what to do."""
    found = problems(files(targets=changed))
    assert any(
        p.file == "targets.yaml" and p.line == line and says in p.message and remedy in p.remedy for p in found
    ), [p.text() for p in found]


@pytest.mark.parametrize("credential", ["a/b", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db/app-AbCdEf"])
def test_a_reference_to_a_secret_loads(credential: str) -> None:
    """The two forms that the secret store takes."""
    assert not problems(files(targets=TARGETS.replace("team/db/app", f'"{credential}"')))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", '"::1"'])
def test_plaintext_to_a_loopback_address_loads(host: str) -> None:
    """Nothing but this machine sees it."""
    assert not problems(files(targets=TARGETS.replace("127.0.0.1", host)))


def test_a_target_with_a_certificate_loads() -> None:
    """The usual case: TLS, verified by the authority in the bundle."""
    pem = "\n".join(f"      {line}" for line in CERTIFICATE.splitlines())
    text = TARGETS.replace("plaintext: true", f"ca_pem: |\n{pem}").replace("127.0.0.1", "db.internal")
    assert load(files(targets=text)).targets["db"].ca_pem.startswith("-----BEGIN CERTIFICATE")


PIECES = (
    *"ab()[]{}?*+|^$.-12,=!<>\\",
    *("(?", "(?i)", "(?P<n>", "(?:", "(?x)", "\\d", "\\b", "\\Z", "\\x41", "\\u0041", "{2,3}"),
)

GENERIC = """\
issuers:
  other:
    kind: generic
    url: https://oidc.example
    jwks_uri: https://oidc.example/keys
    audience: https://api.example
    algorithms: [ES256]
    many_tenants: true
    tenant_claims: [org_id]
    require: {org_id: ["1"]}
    subject: [org_id, project_id]
    run: [job_id]
    display: [project]
    accountable: [{alias: "x:user", claim: user_id}]
    unknown_trigger: {source: [schedule]}
    keep: [ref]
    ignore: [sub]
    max_lifetime_s: 300
    teams: [{team: pipeline, when: {project_id: "7"}}]
"""


def test_a_generic_issuer_is_what_it_says() -> None:
    """Nothing is preset."""
    issuer = load(files(issuers=GENERIC)).issuers[0]
    assert (issuer.algorithms, issuer.subject, issuer.run) == (("ES256",), ("org_id", "project_id"), ("job_id",))
    assert issuer.accountable == (("x:user", "user_id"),)
    assert issuer.unknown_trigger == (("source", ("schedule",)),)
    assert issuer.teams[0].when == (("project_id", "7"),)
    assert issuer.max_lifetime_s == 300


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (ISSUERS.replace('    require: {repository_owner_id: ["9001"]}\n', ""), "serves many tenants"),
        (ISSUERS.replace("repository_owner_id:", "repository_owner:"), "serves many tenants"),
        (GENERIC.replace('require: {org_id: ["1"]}', 'require: {project: ["1"]}'), "serves many tenants"),
        (GENERIC.replace("    tenant_claims: [org_id]\n", ""), "serves many tenants"),
        (ISSUERS.replace('["9001"]', "[9001]"), "valid string"),
        (ISSUERS.replace('["9001"]', "[]"), "at least 1"),
        (ISSUERS.replace('{repository_id: "7"}', "{}"), "at least 1"),
        (ISSUERS.replace("https://api.example", "http://api.example"), "not an https address"),
        (ISSUERS.replace("https://api.example", "https://api.example/"), "not an https address"),
        (ISSUERS.replace("https://api.example", "https://u:p@api.example"), "not an https address"),
        (ISSUERS.replace("https://api.example", "https://api.example#x"), "not an https address"),
        (ISSUERS.replace("https://api.example", "https://"), "not an https address"),
        (ISSUERS.replace("https://api.example", '"https://[::1"'), "not an https address"),
        (ISSUERS.replace("https://api.example", "https://api.example:99999"), "not an https address"),
        (GENERIC.replace("https://oidc.example/keys", "http://localhost/keys"), "not an https address"),
        (GENERIC.replace("ES256", "none"), "'RS256'"),
        (GENERIC.replace("ES256", "HS256"), "'RS256'"),
        (ISSUERS + ISSUERS.partition("\n")[2].replace("ci:", "twin:"), "declare the same issuer"),
        (ISSUERS.replace("kind: github", "kind: bitbucket"), "none of: generic, github, gitlab, kubernetes"),
        (ISSUERS.replace("    kind: github\n", ""), "kind"),
    ],
)
def test_a_wrong_issuer_refuses(changed: str, says: str) -> None:
    """Above all: the CI's issuer serves the world, and a symmetric or absent signature vouches for nobody."""
    found = problems(files(issuers=changed))
    assert any(p.file == "issuers.yaml" and p.line > 1 and says in p.message for p in found), [p.text() for p in found]


def test_a_local_issuer_loads() -> None:
    """http is for loopback only."""
    text = ISSUERS.replace("kind: github", "kind: github\n    url: http://127.0.0.1:8477")
    assert load(files(issuers=text)).issuers[0].jwks_uri == "http://127.0.0.1:8477/.well-known/jwks"


@pytest.mark.parametrize(
    ("changed", "line", "says"),
    [
        (APPROVERS.replace("U0BBB", "U0AAA"), 4, "has the Slack user of alice"),
        (APPROVERS.replace("U0BBB}", "U0BBB}, aliases: [gh:actor_id:1]"), 4, "has the alias gh:actor_id:1 of alice"),
        (APPROVERS.replace("groups: [dba]", "groups: [dbas]"), 3, "which groups does not have"),
        (APPROVERS.replace("T0AAA, user: U0BBB", "X0, user: U0BBB"), 4, "pattern"),
    ],
)
def test_a_wrong_approver_refuses(changed: str, line: int, says: str) -> None:
    """One person must never be able to answer as another."""
    found = problems(files(approvers=changed))
    assert any(p.file == "approvers.yaml" and p.line == line and says in p.message for p in found)


KEY = SoftPasskey()


def _with(*entries: str) -> str:
    """The approvers, alice with the first of ``entries`` as her passkey, and bob with the second."""
    text = APPROVERS
    for person, entry in zip(("U0AAA}", "U0BBB}"), entries, strict=False):
        text = text.replace(person, f"{person}, passkeys: [{entry}]")
    return text


def test_a_registered_passkey_loads() -> None:
    """What the registration page prints is what the file takes, for both kinds of key."""
    for key in (KEY, SoftPasskey(bits=2048)):
        assert load(files(approvers=_with(key.entry()))).people[0].passkeys == (key.registered(),)


@pytest.mark.parametrize(
    ("changed", "line", "says"),
    [
        (_with(KEY.entry(), KEY.entry()), 4, "has a passkey that alice has"),
        (_with(f"{KEY.entry()}, {KEY.entry()}"), 3, "has a passkey that alice has"),
        (_with(KEY.entry().replace(KEY.public_key, KEY.public_key[:-8])), 3, "pattern"),
        (_with(KEY.entry().replace(KEY.public_key, "TUlJQ2dZRUF3UQ==")), 3, "pattern"),
        (_with(KEY.entry().replace(KEY.rp, "https://approve.example.com")), 3, "pattern"),
        (_with(KEY.entry().replace(KEY.id, "short")), 3, "pattern"),
    ],
)
def test_a_wrong_passkey_refuses(changed: str, line: int, says: str) -> None:
    """One key of two people would let one answer as the other; one that was cut short in pasting is found out the night
    when it is needed."""
    found = problems(files(approvers=changed))
    assert any(p.file == "approvers.yaml" and p.line == line and says in p.message for p in found), found


def test_a_rule_that_wants_a_passkey_of_people_who_have_none_refuses() -> None:
    """It would be a rule that nobody can meet, found out when somebody must."""
    high = POLICY.replace("approval:dba:1", "approval:dba:1:webauthn")
    assert "needs 1 people of 'dba' with a passkey, and approvers.yaml has 0" in only(files(policy=high)).message
    assert not problems(files(policy=high, approvers=_with(KEY.entry())))


def test_two_workspaces_may_have_the_same_user_id() -> None:
    """Slack's user ids are unique within a team."""
    assert not problems(files(approvers=APPROVERS.replace("T0AAA, user: U0BBB", "T0CCC, user: U0AAA")))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ("{mode: redact}", "covers nothing"),
        ("{mode: redact, columns: [customers.email]}", "pattern"),
        ("{mode: redact, detectors: [ssn]}", "'email'"),
        ("{mode: redact, targets: [other], detectors: [email]}", "targets.yaml does not have"),
        ("{mode: redact, patterns: ['(']}", "not a regular expression"),
        ("{mode: redact, patterns: ['a*']}", "matches the empty text"),
        ("{mode: redact, patterns: ['(?=a)b']}", "what RE2 does not know"),
        ("{mode: redact, patterns: ['(?<!a)b']}", "what RE2 does not know"),
        ("{mode: redact, patterns: ['(a)\\1']}", "what RE2 does not know"),
        ("{mode: redact, patterns: ['a++b']}", "what RE2 does not know"),
        ("{mode: redact, patterns: ['(?x)a']}", "what RE2 does not know"),
        ("{mode: redact, patterns: ['a\\Z']}", "what RE2 does not know"),
        ("{mode: redact, patterns: ['[\\b]']}", "what RE2 does not know"),
        ("{mode: redact, patterns: ['a{1001}']}", "repeats more than"),
        ("{mode: redact, patterns: ['a{1,9999}']}", "repeats more than"),
    ],
)
def test_a_wrong_mask_refuses(mask: str, says: str) -> None:
    """A mask that hides nothing, or that the broker cannot run, would let the value through."""
    found = problems(files(masking=f"masks:\n  email: {mask}\n"))
    assert any(p.file == "masking.yaml" and p.line == 2 and says in p.message for p in found), [p.text() for p in found]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join))
def test_what_loads_re2_compiles(pattern: str) -> None:
    """The broker compiles it hours later, where a failure would stop every operation."""
    text = json.dumps({"masks": {"email": {"mode": "redact", "patterns": [pattern]}}})
    if not problems(files(masking=text)):
        options = re2.Options()
        options.log_errors = False
        re2.compile(pattern, options)


def test_patterns_of_re2_load() -> None:
    """Also one that Python warns about."""
    rule = load(files(masking="masks:\n  email: {mode: partial, patterns: ['AK[A-Z]{16}', '[[a]b]x']}\n")).masks[
        "email"
    ]
    assert rule.patterns == ("AK[A-Z]{16}", "[[a]b]x")


@pytest.mark.parametrize(
    ("policy", "line", "says"),
    [
        (POLICY.replace('Env::"prod"', 'Env::"prodd"'), 2, "environment 'prodd', which targets.yaml"),
        (POLICY.replace('Target::"db"', 'Target::"dbb"'), 1, "target 'dbb', which targets.yaml"),
        (POLICY.replace('Team::"pipeline"', 'Team::"x"'), 1, "team 'x', which issuers.yaml"),
        (POLICY.replace('Team::"pipeline"', 'Issuer::"https://x"'), 1, "issuer 'https://x', which issuers.yaml"),
        (POLICY.replace("mask:email", "mask:mail"), 2, "mask 'mail', which masking.yaml"),
        (POLICY.replace("approval:dba:1", "approval:dbas:1"), 2, "group 'dbas', which approvers.yaml"),
        (POLICY.replace("approval:dba:1", "approval:dba:2"), 2, "needs 2 people of 'dba', and approvers.yaml has 1"),
    ],
)
def test_a_name_in_a_policy_that_nobody_defines_refuses(policy: str, line: int, says: str) -> None:
    """A forbid on a misspelt environment never applies; an approval of too few people is never given."""
    problem = only(files(policy=policy))
    assert (problem.file, problem.line) == ("policies/main.cedar", line)
    assert says in problem.message


def test_an_unreadable_file_is_not_told_twice() -> None:
    """Names that a broken file would define are not reported as undefined too."""
    assert only(files(targets="targets: [")).file == "targets.yaml"


def test_a_policy_that_is_not_text_refuses() -> None:
    """Like any other file."""
    assert only(files(policy=b"\n\xff")).line == 2


NAMES = ("targets", "issuers", "approvers", "masking", "policy")


@given(st.sampled_from(NAMES), st.binary(max_size=200))
def test_junk_files_give_only_the_configuration_error(name: str, data: bytes) -> None:
    """A pushed bundle is input like any other."""
    assert problems(files(**{name: data}))


yaml_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["targets", "issuers", "people", "masks", "kind", "teams", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=12,
)


@given(st.sampled_from(NAMES[:4]), yaml_values)
def test_any_value_in_a_file_gives_only_the_configuration_error(name: str, value: object) -> None:
    """Well-formed YAML of the wrong shape, which JSON text is."""
    found = problems(files(**{name: json.dumps({name: value, "masks": value})}))
    assert all(problem.remedy for problem in found)
