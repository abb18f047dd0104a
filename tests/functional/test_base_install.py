"""On a machine with nothing but the base install: an archive verifies, offline, by the auditor's own fingerprints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.whole_copy import WholeCopy

ROOT = Path(__file__).resolve().parents[2]
# What the extras bring, and the network: an import or a connection is an error.
RUN = """
import socket, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "pydantic jwt boto3 botocore pynamodb yaml cedarpy duckdb fido2".split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def refuse(*_):
    raise OSError("there is no network here")

sys.meta_path.insert(0, Absent())
socket.socket.connect = refuse
from countersign.__main__ import main
sys.exit(main(sys.argv[1:], {}))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> WholeCopy:
    return WholeCopy(tmp_path_factory.mktemp("whole"))


def run(*arguments: str) -> tuple[int, str, str]:
    ran = subprocess.run([sys.executable, "-c", RUN, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_an_archive_verifies_offline_with_the_base_install(whole: WholeCopy) -> None:
    """An auditor's machine has neither our extras nor a way to us."""
    code, out, err = run("verify", str(whole.archive), "--trust", str(whole.trust))
    assert (code, err) == (0, "")
    assert out.startswith(f"VERIFIED  {whole.subject}\n")
    for part in (
        "copied by https://idp.example.com#carol",
        "1 hourly digest: signatures, each names the one before; 15 rows counted there",
        "1 broker boot",
        "1 configuration",
        "6 events",
        "in your file",
    ):
        assert part in out, out


def test_what_is_wrong_with_an_archive_is_named_there_too(whole: WholeCopy, tmp_path: Path) -> None:
    """Without the extras nothing may pass that they would refuse."""
    body = bytearray(whole.archive.read_bytes())
    key = whole.digested.archive.db.segments[0]
    at = bytes(body).index(f"objects/{key}\0".encode()) + 512 + 30  # its header, and not the list
    body[at] ^= 1
    path = tmp_path / "flipped.tar"
    path.write_bytes(bytes(body))
    code, out, err = run("verify", str(path), "--trust", str(whole.trust), "--json")
    assert (code, err) == (65, "")
    told = json.loads(out)
    assert {finding["key"]: finding["kind"] for finding in told["findings"]}[key] == "altered"
    assert run("verify", str(whole.archive))[0] == 78, "nobody vouches for its keys"


@pytest.mark.parametrize("command", ["review", "replay"])
def test_review_and_replay_read_an_archive_there(whole: WholeCopy, command: str) -> None:
    """Whoever may verify may look."""
    code, out, _ = run(command, str(whole.archive), "--trust", str(whole.trust), "--json")
    assert code == 0
    assert whole.digested.archive.db.session_id in out
