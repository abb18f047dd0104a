"""What the models of the configuration files share: strictness, and pydantic's errors as problems with a place.

Rules: nothing is coerced (``"5432"`` is not a port, ``1`` is not true), no unknown key is ignored, and each field has a
description, which is what the JSON schema, the docs and the remedies show.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chalicelib.config.document import Document, Path
from chalicelib.domain.problem import Problem

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Line: TypeAlias = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
MAX_ENTRIES: Final = 10_000  # of one mapping or list: far past any real file, short of what stalls a cold start


class Strict(BaseModel):
    """The base of every model here."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that the types alone do not refuse. ``path`` leads to it."""

    path: Path
    message: str
    remedy: str


class BundleFile(Strict, ABC):
    """The base of the four files' models."""

    @abstractmethod
    def findings(self) -> Iterator[Finding]:
        """Yield what the types alone do not refuse."""


FileModel = TypeVar("FileModel", bound=BundleFile)


def read_model(model: type[FileModel], document: Document) -> tuple[FileModel | None, tuple[Problem, ...]]:
    """Return what ``document`` says as a ``model``, or None and everything that is wrong with it. Pure."""
    try:
        return model.model_validate(document.root.plain()), ()
    except ValidationError as error:
        schema = model.model_json_schema()
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return None, tuple(
            _problem(document, schema, details["loc"], details["type"], details["msg"]) for details in found
        )


def _problem(document: Document, schema: Mapping[str, Any], path: Path, kind: str, said: str) -> Problem:
    where = _where(document, path)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _kindless(document, schema, path, where)
    if kind == "extra_forbidden":
        keys = sorted(_last(schema, path[:-1]).get("properties", {}))
        near = difflib.get_close_matches(str(path[-1]), keys, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(keys)}."
        return document.problem(path, f"{where}: nobody knows this key", remedy)
    about = _description(schema, path)
    if kind == "missing":
        return document.problem(path, f"{where} is missing", f"Add it: {about}")
    return document.problem(path, f"{where}: {said[:1].lower()}{said[1:]}", about)


def _where(document: Document, path: Path) -> str:
    """Return ``path`` as the file has it: the models' path also has the name of each alternative that was chosen."""
    node = document.root
    parts: list[str] = []
    for depth, part in enumerate(path):
        below = (node.below or {}).get(part)
        if below is not None or depth == len(path) - 1:
            parts.append(str(part))
        node = node if below is None else below
    return ".".join(parts)


def _kindless(document: Document, schema: Mapping[str, Any], path: Path, where: str) -> Problem:
    """Return the problem of an entry that does not say, or says wrongly, which of several kinds it is."""
    said = _last(schema, path).get("discriminator", {})
    key, kinds = str(said.get("propertyName", "")), ", ".join(sorted(said.get("mapping", {})))
    return document.problem((*path, key), f"{where}.{key} is none of: {kinds}", f"Write {key} as one of: {kinds}.")


def _description(schema: Mapping[str, Any], path: Path) -> str:
    texts = [part["description"] for part in _along(schema, path) if "description" in part]
    return str(texts[-1]) if texts else "See the file's schema in docs/schema."


def _last(schema: Mapping[str, Any], path: Sequence[str | int]) -> Mapping[str, Any]:
    return list(_along(schema, path))[-1]


def _along(schema: Mapping[str, Any], path: Sequence[str | int]) -> Iterator[Mapping[str, Any]]:
    """Yield the schema of each value on the way along ``path``, references resolved, as far as there is one."""
    here: Mapping[str, Any] = schema
    yield here
    for part in path:
        named = next(iter(here.get("patternProperties", {}).values()), here.get("additionalProperties"))
        below = here.get("properties", {}).get(part) or here.get("items") or named
        if "oneOf" in here:  # the models' path has the name of the alternative that was chosen
            below = {"$ref": here.get("discriminator", {}).get("mapping", {}).get(part)}
        if not isinstance(below, Mapping):
            return
        reference = below.get("$ref")
        yield below
        here = schema.get("$defs", {}).get(str(reference).rpartition("/")[2], below) if reference else below
        yield here
