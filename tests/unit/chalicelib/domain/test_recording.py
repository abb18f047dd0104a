"""Frames, segments and the Merkle root: what makes a change to a recording visible."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn
from chalicelib.domain.recording import (
    MAX_TEXT,
    Frame,
    FrameKind,
    Gap,
    LeftOut,
    Manifest,
    RecordedAs,
    Segment,
    manifest_key,
    merkle_root,
    segment_header,
    segment_key,
)
from tests.fakes import samples
from tests.fakes.clock import START

# Certificate Transparency's own tree (RFC 6962 and 9162 hash alike): these leaves, and the root of each first few.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
WHO = RecordedAs(
    session_id=SessionId("ses_1"),
    connection_id=ConnectionId("con_1"),
    txn=Txn("t1"),
    protocol="postgres",
    actor="iss#sub",
    originator="iss#root",
    target="orders-prod",
    principal="app",
)


@pytest.mark.parametrize("count", range(len(ROOTS)))
def test_the_root_is_that_of_rfc_9162(count: int) -> None:
    """An auditor's own tool must come to the same root."""
    assert merkle_root([bytes.fromhex(leaf) for leaf in LEAVES[:count]]).hex() == ROOTS[count]


def test_a_leaf_cannot_stand_for_a_node() -> None:
    """Without the 0x00 and 0x01 in front, two segments could be passed off as one (second pre-image)."""
    left, right = b"a" * 32, b"b" * 32
    assert merkle_root([left, right]) != merkle_root([left + right])


def test_a_frame_is_one_line_whatever_it_carries() -> None:
    """A newline in a statement must not make a second frame of it."""
    frame = Frame(
        seq=3, at=START, dir="c2s", kind=FrameKind.OPERATION, text="SELECT 1;\n\x00ö\u2028", meta=(("op", "op_1"),)
    )
    line = frame.line(WHO)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    row = json.loads(line)
    assert (row["sid"], row["con"], row["txn"], row["actor"], row["sub"]) == (
        "ses_1",
        "con_1",
        "t1",
        "iss#sub",
        "iss#root",
    )
    assert (row["v"], row["seq"], row["t"], row["proto"]) == (1, 3, "2026-11-02T09:30:00.000Z", "postgres")
    assert (row["dir"], row["kind"], row["text"]) == ("c2s", "operation", "SELECT 1;\n\x00ö\u2028")
    assert json.loads(row["meta"]) == {"op": "op_1"}


def test_a_frames_text_is_bounded() -> None:
    """A row of an Athena table is; who has more splits it."""
    frame = Frame(seq=1, at=START, dir="s2c", kind=FrameKind.ROWS, text="x" * (MAX_TEXT + 1))
    assert len(json.loads(frame.line(WHO))["text"]) == MAX_TEXT


def test_a_segment_names_the_one_before() -> None:
    """A segment taken out of the middle breaks the link."""
    header = json.loads(segment_header(WHO, 2, "ab" * 32))
    assert header == {"v": 1, "kind": "segment", "sid": "ses_1", "con": "con_1", "number": 2, "prev_sha256": "ab" * 32}


def test_keys_sort_and_say_what_they_are() -> None:
    """Athena's partitions and the sweeper's fence are these names."""
    assert segment_key(SessionId("s"), ConnectionId("c"), 12) == "rec/v1/s/c/000012.ndjson.gz"
    assert manifest_key(SessionId("s"), ConnectionId("c"), START) == "manifests/v1/2026-11-02/s/c.json"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Manifest) if field.name != "signature"])
def test_a_manifests_signature_covers_every_field(name: str) -> None:
    """A gap left out, or another exit, would be another story under the same signature."""
    manifest = samples.manifest()
    changed: Any = {
        "opened_at": manifest.closed_at,
        "closed_at": manifest.opened_at,
        "segments": (),
        "gaps": (Gap(first=1, last=2, why="lost"),),
        "configuration_serial": 9,
        "left_out": LeftOut(outcomes=1, rows=1, bytes=1),
    }.get(name, "x")
    changes: dict[str, Any] = {name: changed}
    assert dataclasses.replace(manifest, **changes).sha256() != manifest.sha256()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Segment)])
def test_a_manifests_signature_covers_every_field_of_a_segment(name: str) -> None:
    """The version id and both hashes say which bytes are meant."""
    manifest = samples.manifest()
    value: Any = 99 if isinstance(getattr(manifest.segments[0], name), int) else "ff" * 32
    changes: dict[str, Any] = {name: value}
    segment = dataclasses.replace(manifest.segments[0], **changes)
    assert dataclasses.replace(manifest, segments=(segment,)).sha256() != manifest.sha256()
