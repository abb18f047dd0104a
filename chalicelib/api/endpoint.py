"""Endpoint: one declaration of a route. The edge enforces it and ``openapi`` documents it, so that they cannot differ.

What it says is what is done: who may call without a token, which parameters and which body are taken, which answers
leave, and which refusals there are. It holds no code of the route itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from pydantic import BaseModel

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import (
    AccessError,
    BadRequest,
    BodyTooLarge,
    ConfigurationInvalid,
    GrantRevoked,
    KeyProofInvalid,
    ProofInvalid,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    Unauthenticated,
    UnsupportedMediaType,
)

Refusals: TypeAlias = tuple[type[AccessError], ...]


class Text:
    """In place of an answer's model: the answer is text and not JSON."""


class Html(Text):
    """The same, and the text is a page."""


class TokenCheck(Enum):
    """Where the caller's token is verified."""

    NONE = "none"  # nobody is asked, or the body itself proves it
    HERE = "here"  # the token and its proof are verified before the view is called
    BEHIND = "behind"  # the token is read here; the function that does the work verifies it, and counts its proof


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter in a path, a query or a header, with its JSON schema."""

    name: str
    means: str
    schema: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One method on one path. ``name`` is its operationId. ``form``: the body is a form and ``body`` its fields,
    checked by whom they are for; else JSON of that model, checked here. ``answers``: status to model, or ``Text``.
    ``refusals`` are those of its own; :meth:`all_refusals` adds what every endpoint of its kind may refuse.
    ``oauth``: errors have RFC 6749's shape. ``fixed``: the answer is the same for everybody, and nothing is refused."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    answers: Mapping[int, type[BaseModel | Text]]
    description: str = ""
    token: TokenCheck = TokenCheck.HERE
    body: type[BaseModel] | None = None
    form: bool = False
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    refusals: Refusals = ()
    oauth: bool = False
    fixed: bool = False

    def query_names(self) -> frozenset[str]:
        return frozenset(parameter.name for parameter in self.query)

    def all_refusals(self) -> Refusals:
        """Return every kind that this endpoint may answer with, each once: its own, and those of its kind."""
        found = list(() if self.fixed else _ALWAYS)
        if self.token is not TokenCheck.NONE:
            found += _WITH_TOKEN
        if self.body is not None:
            found += _WITH_BODY
        return tuple(dict.fromkeys((*found, *self.refusals)))


_ALWAYS: Final[Refusals] = (
    AccessError,
    StoreUnavailable,
    ConfigurationInvalid,
    BadRequest,
)  # an unknown parameter is a BadRequest
_WITH_BODY: Final[Refusals] = (BadRequest, UnsupportedMediaType, BodyTooLarge)
_WITH_TOKEN: Final[Refusals] = (
    BadRequest,
    Unauthenticated,
    TokenInvalid,
    TokenExpired,
    KeyProofInvalid,
    ProofInvalid,
    GrantRevoked,
)
