"""The configuration bundle of a first deployment: checked, put, and made active by an Activation that is signed here.

Rules: only the first is signed by whoever deploys, since nobody is there yet to approve it. Once one is active, a
change is another Activation (docs/runbooks/change-the-configuration.md), and this makes none. A bundle that does not
load is refused before anything is put. What it does not do: keep the bundle; it is the operators' own repository.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final

from chalicelib.config.files import bundle_digest, encode_bundle, read_directory
from chalicelib.config.loader import load_bundle
from chalicelib.domain.activation import Activation, bundle_key
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AlreadyExists, NotFound
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Activations, Objects, Signer
from chalicelib.identity.jws import sign_activation
from chalicelib.policy.engine import compile_policy

_JSON: Final = "application/json"


class Activated(Enum):
    """What became of the bundle."""

    FIRST = "it is active: serial 1, signed by this deployment"
    SAME = "it is active already"
    OTHER = "another one is active: docs/runbooks/change-the-configuration.md says how to change it"


def read_bundle(folder: Path) -> dict[str, bytes]:
    """Return the files of a bundle that loads. Raises ConfigurationInvalid with every problem."""
    files = read_directory(folder)
    load_bundle(files, compile_policy)
    return files


def activate_first(
    files: dict[str, bytes], activations: Activations, objects: Objects, signer: Signer, *, author: str, clock: Clock
) -> Activated:
    """Make ``files`` active where nothing is. Idempotent, after a failure too: the object comes before the Activation.
    Raises StoreUnavailable, and Conflict where somebody else did at the same moment."""
    found = bundle_digest(files)
    try:
        return Activated.SAME if activations.latest().bundle_digest == found else Activated.OTHER
    except NotFound:
        pass  # nothing is active: this is the first
    with suppress(AlreadyExists):  # put by an earlier run: its key is its content's hash
        objects.put_new(bundle_key(found), encode_bundle(files), content_type=_JSON)
    unsigned = Activation(serial=1, bundle_digest=found, previous_digest="", author=author, activated_at=clock.now())
    activations.put(sign_activation(signer, unsigned))
    return Activated.FIRST


SIGNED_WITH: Final = KeyPurpose.ACTIVATION
