"""A bundle made ready for the local stack: checked as its author wrote it, then with the addresses that are served
here.

Rules: the bundle is validated first, unchanged, so that an error names the author's own file and line. The addresses of
``PLACES`` stand for what this stack starts on ports of its own, wherever they appear in ``issuers.yaml`` and the
policies; a target that it serves gets the host and port that it listens on, and what verifies it. Everything else is
taken as it is. ``secrets.yaml`` beside the bundle maps references to values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from chalicelib.config.bundle import Bundle
from chalicelib.config.files import ISSUERS, SECRETS, TARGETS, read_directory
from chalicelib.config.loader import load_bundle
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.policy.engine import compile_policy

API: Final = "api"
CI: Final = "ci"
CLUSTER: Final = "cluster"
PEOPLE: Final = "people"
PLACES: Final[Mapping[str, str]] = {
    API: "http://127.0.0.1:8000",
    CI: "http://127.0.0.1:8477",
    CLUSTER: "http://127.0.0.1:8478",
    PEOPLE: "http://127.0.0.1:8479",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Where this stack serves what bundles name: ``places`` by the names of ``PLACES``; ``targets`` is what
    ``targets.yaml`` then says of each."""

    places: Mapping[str, str]
    targets: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A bundle's files, loaded, and the secrets beside it."""

    files: Mapping[str, bytes]
    bundle: Bundle
    secrets: Mapping[str, str]


def read_configuration(directory: Path) -> Configuration:
    """Return what ``directory`` holds, as written. Raises ConfigurationInvalid with every problem."""
    files = read_directory(directory)
    return Configuration(
        files=files, bundle=load_bundle(files, compile_policy), secrets=_read_secrets(directory / SECRETS)
    )


def with_addresses(configuration: Configuration, served: Served) -> Configuration:
    """Return the same configuration with the addresses that are served here. Raises ConfigurationInvalid."""
    files = {name: _placed(name, content, served) for name, content in configuration.files.items()}
    files[TARGETS] = _with_targets(files[TARGETS], served.targets)
    return Configuration(files=files, bundle=load_bundle(files, compile_policy), secrets=configuration.secrets)


def _placed(name: str, content: bytes, served: Served) -> bytes:
    if name != ISSUERS and not name.startswith("policies/"):
        return content
    for name, url in served.places.items():
        content = content.replace(PLACES[name].encode(), url.encode())
    return content


def _with_targets(content: bytes, served: Mapping[str, Mapping[str, object]]) -> bytes:
    found = yaml.safe_load(content)
    touched = [name for name in served if name in found["targets"]]
    for name in touched:
        found["targets"][name] |= served[name]
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True).encode() if touched else content


def _read_secrets(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{path}: not YAML") from error  # its text may quote a secret: it stays unsaid
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(part, str) for pair in found.items() for part in pair):
        raise ConfigurationInvalid(f"{path}: it maps references to values, both text: quote numbers")
    return found
