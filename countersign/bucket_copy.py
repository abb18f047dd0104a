"""A downloaded bucket (`aws s3 sync s3://BUCKET FOLDER`) as everything that a deployment holds, without a deployment.

Its rows are rebuilt from the archived changes; its keys are those of its own history, and of a file that whoever
downloaded it got from the service (`GET /v1/keys`). Neither vouches for itself: `--trust FILE` says which keys count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chalicelib.domain.errors import NotFound
from chalicelib.domain.signature import KeyPurpose
from countersign.failures import Exit, Failure

if TYPE_CHECKING:
    from chalicelib.domain.clock import Clock
    from chalicelib.services.verify_all import ArchiveSource
    from chalicelib.store.bucket_folder import BucketFolder
    from chalicelib.store.rebuilt import RebuiltStores

Told = Mapping[str, Mapping[str, Mapping[str, str]]]  # purpose to key id to JWK
_MOST_BYTES: Final = 1 << 20  # a deployment's keys are some kilobytes
_SAVE_KEYS: Final = "Save what the service answers: curl -fsS https://SERVICE/v1/keys > keys.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketCopy:
    """``source`` is what is verified; ``stores`` are its rows, which name what of them cannot be read."""

    source: ArchiveSource
    stores: RebuiltStores


@dataclass(frozen=True, slots=True)
class AsOf:
    """Implements ``Clock`` at one moment: that at which a copy was made, of which nothing later can be asked."""

    clock: Clock
    moment: datetime

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return self.clock.monotonic_s()


def open_bucket_copy(folder: str, *, digests: str, keys: str) -> BucketCopy:
    """Return the downloaded bucket in ``folder``; ``digests`` is the folder of a second bucket's digests and ``keys`` a
    file of keys, each empty where there is none. Raises Failure (usage), StoreUnavailable."""
    from chalicelib.services.verify import EvidenceSource
    from chalicelib.services.verify_all import ArchiveSource
    from chalicelib.store.folder import FolderKeys
    from chalicelib.store.rebuilt import RebuiltStores

    objects = _bucket(folder)
    if not objects.keys("items/") and not objects.keys("digests/"):
        hint = "Name the folder that `aws s3 sync s3://BUCKET FOLDER` wrote."
        raise Failure(Exit.USAGE, "this is no downloaded bucket: it has neither items nor digests", hint=hint)
    stores = RebuiltStores(objects, FolderKeys(_known(objects, read_keys(keys) if keys else {})))
    source = ArchiveSource(
        evidence=EvidenceSource(stores=stores),
        objects=objects,
        copies=_bucket(digests) if digests else None,
        rows=None,
        boots=stores.connections,
    )
    return BucketCopy(source=source, stores=stores)


def _known(objects: BucketFolder, told: Told) -> Told:
    """Return the keys that the file tells with those of the bucket's own history."""
    from chalicelib.services.key_history import read_history

    history = read_history(objects)
    return {
        purpose.value: {
            **{entry.jwk["kid"]: dict(entry.jwk) for entry in history.of(purpose.value)},
            **told.get(purpose.value, {}),
        }
        for purpose in KeyPurpose
    }


def read_keys(path: str) -> Told:
    """Return the keys in a file as `GET /v1/keys` answers. Raises Failure (usage)."""
    try:
        with Path(path).open("rb") as file:
            told = json.loads(file.read(_MOST_BYTES))
        found = {
            purpose.value: {str(jwk["kid"]): _jwk(jwk) for jwk in told[purpose.value]["keys"]}
            for purpose in KeyPurpose
            if purpose.value in told
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Failure(Exit.USAGE, f"the file of keys {path} cannot be read", hint=_SAVE_KEYS) from error
    # A refusal that was saved in the place of the keys is JSON too: with it, every signature would be a finding.
    if not any(found.values()):
        raise Failure(Exit.USAGE, f"the file of keys {path} has no key in it", hint=_SAVE_KEYS)
    return found


def _jwk(jwk: Mapping[str, object]) -> Mapping[str, str]:
    return {name: str(jwk[name]) for name in ("kty", "crv", "x", "y", "kid") if name in jwk}


def _bucket(folder: str) -> BucketFolder:
    from chalicelib.store.bucket_folder import BucketFolder

    try:
        return BucketFolder(Path(folder))
    except NotFound as error:
        raise Failure(Exit.USAGE, error.public, hint=folder) from error
