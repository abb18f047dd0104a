"""`countersign chain token` against the real service: what it verifies, what it writes, and what it never shows."""

from __future__ import annotations

import io
import json
import secrets
import stat
from pathlib import Path

import jwt

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.chain import Hop
from chalicelib.domain.kept_proof import kept_key, read_kept
from countersign.__main__ import main
from tests.fakes.control_plane import issuer_key
from tests.fakes.served_plane import ServedPlane
from tests.functional.test_cli_contract import PlaneClock
from tests.functional.world import CLIENT_ID, PEOPLE_ISSUER, STORY

SPENT_S = 301 + 300


def run(plane: ServedPlane, state: Path, *arguments: str) -> tuple[int, str, str]:
    """Run it as carol, whom a rule lets review."""
    now = int(plane.clock.now().timestamp())
    claims = {"iss": PEOPLE_ISSUER, "aud": CLIENT_ID, "sub": "carol", "iat": now, "exp": now + 300}
    token = jwt.encode(
        {**claims, "jti": secrets.token_hex(8)}, issuer_key(), algorithm="RS256", headers={"kid": "ci-1"}
    )
    folder = state / secrets.token_hex(4)
    folder.mkdir(mode=0o700)
    environment = {
        "COUNTERSIGN_API": plane.public_url,
        "COUNTERSIGN_ID_TOKEN": token,
        "XDG_STATE_HOME": str(folder),
    }
    out, err = io.StringIO(), io.StringIO()
    code = main(arguments, environment, out=out, err=err, clock=PlaneClock(plane.clock))
    return code, out.getvalue(), err.getvalue()


def test_an_auditor_verifies_who_began_a_chain(tmp_path: Path) -> None:
    """77 while the token lives; then the issuer's word, with the token in a file of the auditor's own and nowhere
    else."""
    with ServedPlane(files=STORY) as plane:
        assert plane.exchange(plane.ci_token(), audience=None).status_code == 200
        (root,) = plane.stores.chains.rows.values()
        code, _, err = run(plane, tmp_path, "chain", "token", root.txn)
        assert (code, "has not expired" in err) == (77, True), err
        plane.clock.advance(SPENT_S)
        file = tmp_path / "token.json"
        code, out, err = run(plane, tmp_path, "chain", "token", root.txn, "--out", str(file))
        assert code == 0, err
        assert "https://token.actions.githubusercontent.com itself signed" in out
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert sha256_hex(file.read_bytes()) == kept(plane, root)
        assert json.loads(file.read_bytes())["token"].split(".")[1] not in out + err
        assert run(plane, tmp_path, "chain", "token", root.txn, "--out", str(file))[0] == 64, "never replaced"
        assert run(plane, tmp_path, "chain", "token", "no txn")[0] == 64


def kept(plane: ServedPlane, root: Hop) -> str:
    return read_kept(plane.stores.objects.rows[kept_key(root.txn, root.evidence.kept_sha256)]).proof_sha256
