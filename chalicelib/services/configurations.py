"""Checks the configurations that were active: each signed as such, and its bundle there, byte for byte what was signed.

Under which rules something was decided is evidence like the decision: a bundle that is gone or edited leaves approvals
that nobody can judge any more. The same check for a copy, for the deployment and for a downloaded bucket. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from chalicelib.config.files import bundle_digest, decode_bundle
from chalicelib.domain.activation import ACTIVATION_SIGNATURE_TYPE, Activation, bundle_key
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import ConfigurationInvalid, NotFound
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Keys
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.signatures import signature_finding


def configuration_findings(activation: Activation, objects: ReadObjects, keys: Keys) -> Iterator[Finding]:
    """Give what does not hold of one activation and its bundle. Raises StoreUnavailable."""
    fault = signature_finding(
        f"activations/{activation.serial:08d}.json",
        keys,
        KeyPurpose.ACTIVATION,
        ACTIVATION_SIGNATURE_TYPE,
        activation.signature,
        activation.sha256(),
    )
    if fault is not None:
        yield fault
    key = bundle_key(activation.bundle_digest)
    try:
        same = bundle_digest(decode_bundle(objects.get(key))) == activation.bundle_digest
    except NotFound:
        what = f"is missing: activation {activation.serial} made it active"
        yield Finding(key=key, kind=FindingKind.MISSING, what=what)
    except ConfigurationInvalid:
        yield Finding(key=key, kind=FindingKind.ALTERED, what="is no bundle")
    else:
        if not same:
            what = f"is not the bundle that activation {activation.serial} made active"
            yield Finding(key=key, kind=FindingKind.ALTERED, what=what)


def archived_configuration_findings(
    archived: Mapping[str, Mapping[str, Json]], objects: ReadObjects, keys: Keys
) -> Iterator[Finding]:
    """Give the same of each archived row of the activations table, by its name. Raises StoreUnavailable."""
    for name, row in sorted(archived.items()):
        found = _activation(row)
        if found is None:
            yield Finding(key=name, kind=FindingKind.ALTERED, what="is no activation")
        else:
            yield from configuration_findings(found, objects, keys)


def _activation(row: Mapping[str, Json]) -> Activation | None:
    """Return the activation in a row's document, None where it is none of ours. Pure."""
    match row:
        case {
            "serial": int(serial),
            "bundle_digest": str(digest),
            "previous_digest": str(previous),
            "author": str(author),
            "activated_at": str(activated_at),
            "signature": str(signature),
        }:
            epoch_at = row.get("epoch_at")
            try:
                return Activation(
                    serial=serial,
                    bundle_digest=digest,
                    previous_digest=previous,
                    author=author,
                    activated_at=datetime.fromisoformat(activated_at),
                    signature=signature,
                    epoch_at=None if epoch_at is None else datetime.fromisoformat(str(epoch_at)),
                )
            except ValueError:
                return None
        case _:
            return None
