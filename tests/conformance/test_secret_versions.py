"""A secret is changed in two steps, in an emulator of AWS: nothing is lost between them, no other run is overtaken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from boto3.session import Session

from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.store.opened import open_stores
from chalicelib.store.secrets import SecretVersions
from dev.emulator import start_ministack
from tests.conformance.backends import REGION, new_settings

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("ministack")]
NAME = "countersign/targets/orders-prod/app"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    emulator = start_ministack(tmp_path_factory.mktemp("ministack"))
    try:
        yield dict(emulator.environment(REGION))
    finally:
        emulator.stop()


@pytest.fixture
def client(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Session(region_name=REGION).client("secretsmanager")


def test_what_is_proposed_counts_only_once_it_is_promoted(client: Any) -> None:
    """Connections go on getting the former one, and a later run finds what an earlier one proposed."""
    client.create_secret(Name=NAME, SecretString="former")
    stores = open_stores(new_settings())
    versions = SecretVersions(stores.clients)
    before = versions.current(NAME)
    assert versions.pending(NAME) is None
    proposed = versions.propose(NAME, Secret("fresh"))
    assert stores.secrets.get(NAME).expose() == "former"
    found = versions.pending(NAME)
    assert found is not None
    assert (found.id, found.value.expose()) == (proposed.id, "fresh")
    versions.promote(NAME, proposed, before)
    assert stores.secrets.get(NAME).expose() == "fresh"
    assert versions.pending(NAME) is None
    later = versions.propose(NAME, Secret("later"))
    with pytest.raises(StoreUnavailable):
        versions.promote(NAME, later, before)  # somebody else's run came first: `before` is not the current one
    assert versions.current(NAME).value.expose() == "fresh"


def test_a_secret_that_is_not_there_is_said(client: Any) -> None:
    """A name that is misspelt in targets.yaml must not make a secret of that name."""
    versions = SecretVersions(open_stores(new_settings()).clients)
    assert versions.pending("countersign/targets/none") is None
    with pytest.raises(NotFound):
        versions.current("countersign/targets/none")
    with pytest.raises(NotFound):
        versions.propose("countersign/targets/none", Secret("x"))
