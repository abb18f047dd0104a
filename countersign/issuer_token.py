"""The issuer's token that began a chain, as the service opens it for a reviewer once it has expired.

What is believed of the answer is what verifies here: the issuer's signature by the keys as fetched then, and the
claims' hash, which is the origin hop's. Nothing of the token is printed: it goes into a file of its own, or into a copy
of evidence, since it names people. Needs the extra ``audit`` (issuers' algorithms), imported when called.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import TXN
from countersign.api import text_of
from countersign.chain_proof import shown_hops
from countersign.failures import Exit, Failure
from countersign.service import Service

if TYPE_CHECKING:
    from chalicelib.domain.chain import Hop

_OLDER = "Is this command line older than the service? `pip install -U countersign`."


def opened_proof(service: Service, txn: str) -> tuple[bytes, Hop]:
    """Return the plain proof that ``txn`` began with, verified, and the origin hop as the service shows it.

    Raises Failure: 64 for what is no txn, 77 where it is not there, not the caller's to see, or has not expired; 65
    where the token does not verify or is not the hop's; 69 where the answer makes no sense.
    """
    from chalicelib.identity.compact import Malformed
    from chalicelib.services.kept_check import require_vouched

    if not TXN.match(txn):
        raise Failure(Exit.USAGE, "a chain's id looks like 01j9z3k4m5n6p7q8r9s0t1v2w3")
    told = service.get(service.address.url(f"/v1/chains/{txn}/token")).body
    chain = service.get(service.address.url(f"/v1/chains/{txn}")).body
    try:
        body = text_of(told, "proof").encode()
        root = shown_hops(chain.get("hops"))[0].hop
    except ValueError as error:
        raise Failure(Exit.UNREACHABLE, f"the service's answer makes no sense: {error}", hint=_OLDER) from error
    try:
        require_vouched(root, body)
    except (ProofInvalid, Malformed) as error:
        raise Failure(Exit.INVALID, f"the issuer's token does not show who began this chain: {error}") from error
    return body, root


def write_private(path: str, body: bytes) -> None:
    """Write a new file that only its owner may read. Raises Failure (usage)."""
    try:
        made = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(made, "wb") as file:
            file.write(body)
    except OSError as error:
        raise Failure(Exit.USAGE, "the file cannot be written, or is there already", hint=path) from error
