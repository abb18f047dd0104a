"""The committed JSON schemas are the models' own, and say something of every field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.masking import BUILT_IN_DETECTORS
from chalicelib.config.masking import MaskEntry
from chalicelib.config.schemas import DIALECT, main, schemas

COMMITTED = Path(__file__).parents[4] / "docs/schema"
OTHERS = {"events.json"}  # of no file of a bundle: tests/unit/chalicelib/domain/test_audit.py compares it


def test_the_committed_schemas_are_current() -> None:
    """Else run: python -m chalicelib.config.schemas docs/schema"""
    committed = {path.name: path.read_text() for path in COMMITTED.glob("*.json") if path.name not in OTHERS}
    assert committed == dict(schemas())


def test_main_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that the test above names does what it says; a wrong call does nothing."""
    assert main([str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(schemas())
    assert main([]) == 64
    assert "usage" in capsys.readouterr().err


def objects(part: object) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for below in part.values():
            yield from objects(below)
    elif isinstance(part, list):
        for below in part:
            yield from objects(below)


@pytest.mark.parametrize("name", sorted(schemas()))
def test_every_field_is_described_and_no_unknown_key_is_allowed(name: str) -> None:
    """An editor shows the description, and a newcomer's misspelt key turns red."""
    schema = json.loads(schemas()[name])
    assert schema["$schema"] == DIALECT
    for part in objects(schema):
        for field, about in part.get("properties", {}).items():
            assert about.get("description"), f"{name}: {field}"
        if part.get("type") == "object":
            assert part.get("additionalProperties") is False, f"{name}: {part.get('title')}"


def test_the_detectors_are_those_that_the_broker_has() -> None:
    """A name that the loader takes and the broker does not know would stop every connection."""
    listed = MaskEntry.model_json_schema()["properties"]["detectors"]["items"]["enum"]
    assert set(listed) == BUILT_IN_DETECTORS
