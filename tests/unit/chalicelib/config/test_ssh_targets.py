"""targets.yaml for ssh: what a target says, and what is refused with its line and what to do."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.config.targets import SshTarget
from chalicelib.domain.target import CERTIFICATE, Principal, Protocol
from tests.unit.chalicelib.config.bundles import TARGETS, files, load, problems

KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd4sx/GVwBqsoZrDIqGeRwmdbxmhsLRYrK7NclAM1qB"
SSH: Final = f"""\
targets:
  db:
    protocol: ssh
    environment: prod
    description: A machine
    host: db.example.com
    port: 22
    principals:
      deploy: {{credential: certificate, login: deploy-svc}}
      legacy: {{credential: team/db/legacy}}
    default_principal: deploy
    host_keys:
      - "{KEY}"
      - "@cert-authority {KEY}"
"""


def test_an_ssh_target_is_what_it_says() -> None:
    """Nothing of PostgreSQL's is in it: no database, no authority in PEM, no plaintext, no search path."""
    target = load(files(targets=SSH)).targets["db"]
    assert (target.protocol, target.host, target.port) == (Protocol.SSH, "db.example.com", 22)
    assert target.principals == (
        Principal(name="deploy", credential=CERTIFICATE, login="deploy-svc"),
        Principal(name="legacy", credential="team/db/legacy"),
    )
    assert [principal.account for principal in target.principals] == ["deploy-svc", "legacy"]
    assert target.host_keys == (KEY, f"@cert-authority {KEY}")
    assert (target.database, target.ca_pem, target.plaintext, target.search_path) == ("", "", False, ())


def test_both_protocols_in_one_file() -> None:
    """Each entry is judged by its own protocol."""
    both = TARGETS.replace("  db:", "  orders:") + SSH.partition("\n")[2]
    targets = load(files(targets=both)).targets
    assert {name: target.protocol.value for name, target in targets.items()} == {"orders": "postgres", "db": "ssh"}


@pytest.mark.parametrize(
    ("changed", "line", "says", "remedy"),
    [
        (SSH.replace("protocol: ssh", "protocol: telnet"), 3, "none of: postgres, ssh", "Write protocol"),
        (SSH.replace("    protocol: ssh\n", ""), 2, "none of: postgres, ssh", "Write protocol"),
        (SSH + "    database: orders\n", 15, "targets.db.database: nobody knows this key", "Known here"),
        (SSH + "    plaintext: true\n", 15, "nobody knows this key", "Known here"),
        (TARGETS + f'    host_keys: ["{KEY}"]\n', 13, "nobody knows this key", "Did you mean"),
        (TARGETS.replace("team/db/app", "certificate"), 10, "pattern", "Where the login's secret is"),
        (
            TARGETS.replace("{credential: team/db/app}", "{credential: team/db/app, login: x}"),
            10,
            "login",
            "Known here",
        ),
        (SSH.replace("team/db/legacy", "hunter2"), 10, "pattern", "TrustedUserCAKeys"),
        (SSH.replace("team/db/legacy", "AKIAIOSFODNN7EXAMPLE/x"), 10, "looks like a secret", "replace it"),
        (SSH.replace("deploy-svc", "'-oProxyCommand=x'"), 9, "pattern", "account's own name"),
        (SSH.replace("deploy-svc", "'a,root'"), 9, "pattern", "account's own name"),
        (SSH.replace("      legacy:", "      Le gacy:"), 10, "pattern", ""),
        (SSH.replace("default_principal: deploy", "default_principal: root"), 11, "not one of", "Name one of: deploy"),
        (SSH.partition("    host_keys")[0], 2, "targets.db.host_keys is missing", "Nothing is trusted on first use"),
        (SSH.partition("    host_keys")[0] + "    host_keys: []\n", 12, "at least 1", "Nothing is trusted"),
        (SSH.replace(f'"{KEY}"', f'"{KEY} root@db"'), 13, "pattern", "Nothing is trusted"),
        (SSH.replace(f'"{KEY}"', f'"db.example.com {KEY}"'), 13, "pattern", "Nothing is trusted"),
        (SSH.replace(f'"{KEY}"', f'"@revoked {KEY}"'), 13, "pattern", "Nothing is trusted"),
        (SSH.replace(f'"{KEY}"', '"ssh-dss AAAAB3NzaC1kc3MAAAABAQ"'), 13, "pattern", "Nothing is trusted"),
        (SSH.replace(f'"{KEY}"', f'"{KEY[:-4]}"'), 13, "not a whole ssh-ed25519 key", "Copy the line again"),
        (SSH.replace(f'"{KEY}"', f'"{KEY}AA=="'), 13, "not a whole ssh-ed25519 key", "Copy the line again"),
        (SSH.replace(f'"@cert-authority {KEY}"', f'"@cert-authority {KEY[:-8]}"'), 14, "host key 2", "Copy the line"),
        (SSH.replace(f'"{KEY}"', f'"{KEY.replace("ssh-ed25519", "ssh-rsa")}"'), 13, "not a whole ssh-rsa key", "Copy"),
    ],
)
def test_a_wrong_ssh_target_refuses(changed: str, line: int, says: str, remedy: str) -> None:
    """Each with the line and what to do: a host key that never matches is a target that is never reached."""
    found = problems(files(targets=changed))
    assert any(
        p.file == "targets.yaml" and p.line == line and says in p.message and remedy in p.remedy for p in found
    ), [p.text() for p in found]


@given(st.text(alphabet="ABCDabcd0123+/=", min_size=16, max_size=80))
def test_any_base64_is_a_key_or_a_problem(blob: str) -> None:
    """A finding, and never an exception, whatever somebody pasted."""
    entry = SSH.partition("    host_keys")[0] + f'    host_keys: ["ssh-ed25519 {blob}"]\n'
    found = problems(files(targets=entry))
    assert found
    assert {problem.line for problem in found} == {12}


def test_the_types_have_no_default_that_trusts() -> None:
    """Without host keys there is no target, in the types and not only in a check."""
    assert SshTarget.model_fields["host_keys"].is_required()
