"""Kept tokens under the very policies of a deployment: who seals cannot open, who opens seals nothing, nobody else
either."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.identifiers import new_txn
from chalicelib.domain.kept_proof import kept_key
from chalicelib.domain.store import Stores
from chalicelib.store.opened import open_stores
from dev.preparation import Order, prepare
from dev.provision import BUCKET_KEY
from dev.settings import SystemClock
from tests.conformance.backends import Backend
from tests.conformance.emulated import settings_with_copies
from tests.fakes.kept import issued_token, keep_token

CONTEXT = {"countersign:txn": "01m6dsg7e0fwejtv7egfb0rbxm"}


def test_the_roles_of_a_kept_token(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: the API, the auditor or the function that saw the token last reads it while it lives; or who opens tokens
    puts one of their own in its place."""
    if backend.name != "ministack":
        pytest.skip("only ministack evaluates policies")
    clock, unkeyed = SystemClock(), settings_with_copies()
    settings = replace(unkeyed, bucket_key=f"alias/{unkeyed.prefix}-{BUCKET_KEY}")
    order = Order(
        store=settings,
        account="123456789012",
        function_prefix=f"{settings.prefix}-",
        secrets={},
        files={"targets.yaml": ""},
        credentials=(),
    )
    prepared = prepare(order, clock)

    def become(role: str) -> Stores:
        for name, value in prepared.roles[role].environment().items():
            monkeypatch.setenv(name, value)
        return open_stores(settings)

    txn = new_txn(clock.now())
    sha256 = keep_token(become("sign"), txn, "https://issuer.example", issued_token(clock.now()), clock.now())
    sealed = become("sign").vault.seal(b"a token", CONTEXT)
    for role in sorted(set(prepared.roles) - {"open_token"}):
        with pytest.raises(StoreUnavailable):
            become(role).vault.open(sealed, CONTEXT)
    opener = become("open_token")
    assert opener.vault.open(sealed, CONTEXT) == b"a token"
    assert opener.objects.get(kept_key(txn, sha256))
    with pytest.raises(StoreUnavailable):
        opener.vault.seal(b"another", CONTEXT)
    with pytest.raises(StoreUnavailable):
        opener.objects.put_new(kept_key(txn, "0" * 64), b"{}", content_type="application/json")
    for role in ("api", "sign"):
        with pytest.raises(StoreUnavailable):
            become(role).objects.get(kept_key(txn, sha256))
    assert become("auditor").objects.get(kept_key(txn, sha256)), "sealed, for whoever verifies"
