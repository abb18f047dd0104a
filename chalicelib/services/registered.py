"""Whether a passkey was a person's in a configuration: read from the bundle's own bytes, which its digest names.

Reads one object and one file of it. Whether the configuration was ever active is the Activation's signature to say
(``services.passkeys``).
"""

from __future__ import annotations

from chalicelib.config.approvers import ApproversFile
from chalicelib.config.document import Document, read_document
from chalicelib.config.files import APPROVERS, bundle_digest, decode_bundle
from chalicelib.config.model import read_model
from chalicelib.domain.activation import bundle_key
from chalicelib.domain.ask import Answer
from chalicelib.domain.errors import ConfigurationInvalid, NotFound
from chalicelib.domain.passkey import Assertion
from chalicelib.domain.reading import ReadObjects


def registered_fault(answer: Answer, given: Assertion, objects: ReadObjects) -> str:
    """Return what speaks against the passkey of ``given`` being the person's who answered; empty where nothing does.

    Raises StoreUnavailable.
    """
    serial = given.activation.serial
    try:
        files = decode_bundle(objects.get(bundle_key(given.activation.bundle_digest)))
    except NotFound:
        return f"cannot be verified: configuration {serial}, which says whose passkey it was, is missing"
    except ConfigurationInvalid:
        return f"does not verify: configuration {serial} is not the one that was signed"
    if bundle_digest(files) != given.activation.bundle_digest:
        return f"does not verify: configuration {serial} is not the one that was signed"
    document = read_document(APPROVERS, files.get(APPROVERS, b""))
    found = read_model(ApproversFile, document)[0] if isinstance(document, Document) else None
    people = () if found is None else found.domain()
    if any(person.id == answer.person and given.passkey in person.passkeys for person in people):
        return ""
    return f"does not verify: its passkey was not {answer.person}'s in configuration {serial}"
