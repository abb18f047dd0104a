"""Runbooks followed literally: the blocks that are marked ``run`` are taken out of the pages and run, on a stack of
their own, since one of them voids everything of before.

What needs AWS is not run; that each of its commands exists is ``tests/unit/test_runbooks.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.config.files import decode_bundle
from chalicelib.domain.activation import bundle_key
from chalicelib.settings import read_store_settings
from chalicelib.store.opened import Stores, open_stores
from dev.emulator import ROOT_KEY
from dev.local_stack import Stack, StackOptions
from dev.settings import child_environment
from tests.e2e.visitor import Visitor, card_with
from tests.functional.test_releases import RELEASES, VECTORS, left
from tests.unit.dev.calling import call
from tests.unit.test_runbooks import ROOT, blocks

pytestmark = [pytest.mark.e2e, pytest.mark.soak]
WITHIN_S = 60.0
AUTHOR = "Ada, platform"


class Followed:
    """A stack, an operator's shell for it, and the folder that the operator is in."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.auditor: dict[str, str] = dict(stack.ready["aws"]["auditor"])
        self.operator = self.auditor | {
            "AWS_ACCESS_KEY_ID": ROOT_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
            "AWS_REGION": stack.ready["aws"]["region"],
        }
        self.operator.pop("AWS_SESSION_TOKEN", None)

    @property
    def stores(self) -> Stores:
        return open_stores(read_store_settings(self.operator))

    def run(self, page: str, number: int, told: dict[str, str] | None = None) -> str:
        """Run the ``number``th marked block of a page, as an operator where nothing else is said; return its output."""
        marked = [body for info, body in blocks(ROOT / "docs/runbooks" / page) if info == "sh run"]
        path = f"{Path(sys.executable).parent}{os.pathsep}/usr/local/bin:/usr/bin:/bin"
        done = subprocess.run(
            ["/bin/bash", "-euc", marked[number]],
            env=child_environment({**(told or self.operator), "PATH": path, "HOME": str(self.folder)}),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{page}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    with Stack(StackOptions()) as stack, pytest.MonkeyPatch.context() as patched:
        found = Followed(stack, tmp_path_factory.mktemp("operator"))
        for name, value in found.operator.items():  # for the stores that this test reads itself: botocore looks there
            patched.setenv(name, value)
        yield found


def test_the_history_of_the_keys_begins(followed: Followed) -> None:
    """Done once, on the day of which nobody remembers anything later."""
    assert "token" in followed.run("change-a-key.md", 0)
    assert len(followed.stores.objects.keys("keys/v1/")) >= 8


def test_a_change_of_the_configuration_is_in_force_and_verifies(followed: Followed) -> None:
    """The page is the one way to change anything in production: a bundle, its Activation, and no process restarted."""
    before = followed.stores.activations.latest()
    bundle = followed.folder / "bundle"
    for name, content in decode_bundle(followed.stores.objects.get(bundle_key(before.bundle_digest))).items():
        path = bundle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    masking = bundle / "masking.yaml"
    masking.write_bytes(masking.read_bytes() + b"\n# changed by the runbook\n")
    told = followed.operator | {"BUNDLE": str(bundle), "AUTHOR": AUTHOR}
    followed.run("change-the-configuration.md", 0, told)
    said = followed.run("change-the-configuration.md", 1, told)
    after = followed.stores.activations.latest()
    assert said.split() == [str(before.serial + 1), after.bundle_digest]
    assert (after.author, after.previous_digest) == (AUTHOR, before.bundle_digest)
    assert Visitor.of(followed.stack).session()["connect"], "brokers and functions believe its signature"


def test_an_issuer_is_looked_at_and_a_job_of_it_lists_what_it_may_ask_for(followed: Followed) -> None:
    """The two commands that say whether a new issuer works."""
    issuer = followed.stack.ready["issuer"]
    assert issuer["url"] in followed.run("add-an-issuer.md", 0, {"ISSUER": issuer["url"]})
    token = str(call(issuer["mint"], {})[1]["token"])
    job = {"COUNTERSIGN_API": followed.stack.ready["api"], "COUNTERSIGN_ID_TOKEN": token}
    assert "orders-prod" in followed.run("add-an-issuer.md", 1, job)


def test_the_line_that_an_ssh_target_trusts_is_at_its_address(followed: Followed) -> None:
    """What is copied from there decides who gets into the machine."""
    assert followed.run("add-a-target.md", 0).startswith("ecdsa-sha2-nistp256 ")


def test_without_slack_the_asks_that_wait_are_found(followed: Followed) -> None:
    """The card has the ask's id, and no card comes: the page's address must be had from the table."""
    followed.run("slack-down.md", 0, followed.auditor)
    status, _ = Visitor.of(followed.stack).ask(reason="while Slack is down", key="while-slack-is-down")
    assert status == 202
    found = followed.run("slack-down.md", 1)
    assert found.startswith("ask_")
    assert "orders-prod" in found
    card_with(followed.stack, "while Slack is down").click("UALICE")
    assert followed.run("slack-down.md", 1) in ("", found), "what is used is not listed; what is answered may wait"


def test_who_leaves_takes_what_verifies_without_us(followed: Followed) -> None:
    """The last thing that anybody does here, and it cannot be done again. A stack of minutes has no digest, so the copy
    that is verified is the one that a release left."""
    followed.run("leave.md", 0)
    keys, trust = followed.folder / "keys.json", followed.folder / "fingerprints.txt"
    assert "token" in json.loads(keys.read_bytes())
    assert (followed.folder / "fingerprints-now.txt").read_text().split("\n", 1)[1]
    with zipfile.ZipFile(VECTORS / RELEASES[-1] / "bucket.zip") as kept:
        kept.extractall(followed.folder / "bucket")
    for path in (keys, trust):
        path.write_bytes((VECTORS / RELEASES[-1] / path.name.replace("fingerprints", "trust")).read_bytes())
    said = followed.run("leave.md", 1, {"LANG": "C.UTF-8", "DOWNLOADED": left(RELEASES[-1], "now.json")["now"]})
    assert said.startswith("VERIFIED")


def test_after_a_restore_what_was_granted_before_is_void(followed: Followed) -> None:
    """Last of all: nothing of before counts after it."""
    session = Visitor.of(followed.stack).session()
    assert "the store's epoch is" in followed.run("after-a-restore.md", 0)
    assert followed.stores.activations.latest().epoch_at is not None
    revoked = followed.stores.revocations.any_of(followed.stores.sessions.get(session["session_id"]).liveness_keys())
    assert revoked is not None
