"""Whether the passkey of an answer was the person's, by the configuration that was active: for whoever verifies later.

Why beside ``identity.webauthn``: an assertion verifies under the key that the answer names, and who stole the answer
key can name one of their own. So the answer carries the signed Activation, the Activation names its bundle by digest,
the bucket has the bundle's bytes under that digest, and in them stands whose passkey it is. Each link is checked; needs
public keys and that one object, and so works on a copy. The libraries that read an assertion and a bundle are imported
when there is an assertion to check: where they are not installed (the pipeline's command line), that is said of it.
"""

from __future__ import annotations

from chalicelib.domain.ask import Answer
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.store import Keys
from chalicelib.identity.jws import verify_activation


def passkey_fault(answer: Answer, objects: ReadObjects, keys: Keys) -> str:
    """Return what is wrong with the answer's assertion, for a finding; empty where it holds, or where there is none.

    Raises StoreUnavailable.
    """
    given = answer.assertion
    if given is None:
        return ""
    try:
        from chalicelib.identity.webauthn import verify_assertion
        from chalicelib.services.registered import registered_fault
    except ImportError:
        return "cannot be verified here: a passkey's assertion needs countersign[audit] to be installed"
    try:
        verify_assertion(answer)
    except ProofInvalid as error:
        return f"does not verify: {error.public} ({error.detail.get('why', '')})"
    try:
        verify_activation(given.activation, keys)
    except ProofInvalid:
        return "does not verify: the configuration that it names was never signed"
    return registered_fault(answer, given, objects)
