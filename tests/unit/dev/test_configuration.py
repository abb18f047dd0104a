"""A bundle made ready for the local stack."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.problem import problems_of
from dev.configuration import Served, read_configuration, with_addresses
from dev.settings import DEMO_BUNDLE

SERVED = Served(
    places={"api": "http://127.0.0.1:1111", "ci": "http://127.0.0.1:2222", "people": "http://127.0.0.1:4444"},
    targets={"orders-prod": {"host": "127.0.0.1", "port": 3333, "plaintext": True, "ca_pem": ""}},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_BUNDLE, tmp_path / "bundle"))


def test_the_addresses_served_here_take_the_place_of_the_bundles(folder: Path) -> None:
    """Ports are found at start; the bundle must name them, since keys and audiences come from it alone."""
    bundle = with_addresses(read_configuration(folder), SERVED).bundle
    issuer, people = (next(one for one in bundle.issuers if one.name == name) for name in ("github", "people"))
    assert people.url == SERVED.places["people"]
    assert issuer.url == SERVED.places["ci"]
    assert issuer.jwks_uri.startswith(f"{SERVED.places['ci']}/")
    assert issuer.audience == SERVED.places["api"]
    assert (bundle.targets["orders-prod"].host, bundle.targets["orders-prod"].port) == ("127.0.0.1", 3333)


def test_a_target_and_an_issuer_of_ones_own_stay_as_they_are(folder: Path) -> None:
    """Somebody may point the stack at servers of their own: only the two placeholders stand for ours."""
    issuers = folder / "issuers.yaml"
    issuers.write_text(issuers.read_text().replace("127.0.0.1:8477", "127.0.0.1:9999"))
    bundle = with_addresses(read_configuration(folder), Served(places=SERVED.places, targets={})).bundle
    assert bundle.issuers[0].url == "http://127.0.0.1:9999"
    assert bundle.targets["orders-prod"].port == 5432


def test_an_error_names_the_authors_own_file_and_line(folder: Path) -> None:
    """The bundle is checked as written: after the rewriting the line numbers would be ours."""
    targets = folder / "targets.yaml"
    targets.write_text(targets.read_text().replace("port: 5432", "port: none"))
    line = next(n for n, text in enumerate(targets.read_text().splitlines(), 1) if "port: none" in text)
    with pytest.raises(ConfigurationInvalid) as raised:
        read_configuration(folder)
    assert ("targets.yaml", line) in {(problem.file, problem.line) for problem in problems_of(raised.value, file="")}


def test_secrets_lie_beside_the_bundle_and_never_in_it(folder: Path) -> None:
    """The bundle is put into the bucket for ever; a password in it could never be taken back."""
    (folder / "secrets.yaml").write_text("targets/mine: hunter2\n")
    found = with_addresses(read_configuration(folder), SERVED)
    assert found.secrets == {"targets/mine": "hunter2"}
    assert not any(b"hunter2" in content for content in found.files.values())


@pytest.mark.parametrize("text", ["- a", "a: 1", "a: [hunter2", "1: b"])
def test_secrets_of_the_wrong_shape_are_refused_unquoted(folder: Path, text: str) -> None:
    """YAML's own message would quote the line that holds the secret."""
    (folder / "secrets.yaml").write_text(text)
    with pytest.raises(ConfigurationInvalid) as raised:
        read_configuration(folder)
    assert "hunter2" not in raised.value.public
