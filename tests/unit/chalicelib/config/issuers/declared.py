"""A declaration as an operator writes it, taken to the real verifier: issuers.yaml in, who a token is about out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from chalicelib.config.document import Document, read_document
from chalicelib.config.issuers import IssuersFile
from chalicelib.config.model import read_model
from chalicelib.domain.identity import VerifiedIdentity
from chalicelib.domain.issuer import Issuer
from chalicelib.domain.problem import Problem
from chalicelib.identity.issuers import IssuerVerifier
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import MemoryIssuer

ROOT: Final = Path(__file__).resolve().parents[5]
SIGNER: Final = MemoryIssuer()  # one RSA key for all: making one takes most of a second


def problems(text: str) -> list[Problem]:
    """Return what ``countersign config check`` says of the file alone."""
    document = read_document("issuers.yaml", text.encode())
    assert isinstance(document, Document), document
    model, found = read_model(IssuersFile, document)
    located = [] if model is None else model.findings()
    return [*found, *(document.problem(one.path, one.message, one.remedy) for one in located)]


def declared(text: str) -> Issuer:
    """Return the first issuer of ``text``, in which nothing may be wrong."""
    assert not problems(text), problems(text)
    document = read_document("issuers.yaml", text.encode())
    assert isinstance(document, Document)
    model, _ = read_model(IssuersFile, document)
    assert model is not None
    return model.domain()[0]


def documented(kind: str, which: int = 0) -> str:
    """Return a YAML block of the kind's page: what a user pastes is what is tested."""
    page = (ROOT / "docs" / "issuers" / f"{kind}.md").read_text()
    blocks: list[str] = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    return blocks[which]


class Verified:
    """Verifies tokens under one declaration, and keeps which claims it did not know."""

    def __init__(self, text: str, clock: FakeClock | None = None) -> None:
        self.issuer = declared(text)
        self.unknown: list[str] = []
        self._verifier = IssuerVerifier(
            [self.issuer], SIGNER.fetch, clock or FakeClock(), report=lambda _, names: self.unknown.extend(names)
        )

    def __call__(self, claims: Mapping[str, Any], signer: MemoryIssuer = SIGNER) -> VerifiedIdentity:
        return self._verifier.verify(signer.token(claims))
