"""The API under schemathesis: what it makes of our own document, thousands of ways, against the running stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dev.local_stack import Stack
from dev.settings import ROOT, child_environment
from tests.e2e.visitor import Visitor

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
EXAMPLES = 10  # an endpoint in the second phase: with the first, which is a fixed number of cases, 30 s on two cores
# Chalice's local server answers 501 to TRACE before our code is reached, where API Gateway answers 403.
CONFIGURATION = """
hooks = "tests.e2e.openapi_hooks"
[phases.coverage]
unexpected-methods = ["DELETE", "PATCH", "PUT"]
"""
# What a schema allows may still be refused: a name of nothing of ours, an id that is not of the kind beside it.
LEFT_OUT = "positive_data_acceptance"


def test_no_request_that_the_document_allows_or_forbids_breaks_the_api(stack: Stack, tmp_path: Path) -> None:
    """No 5xx, no answer that the document lacks, nothing accepted that it forbids, no endpoint that ignores its
    caller's token."""
    visitor = Visitor.of(stack, run_id="schemathesis")
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    api = stack.ready["api"]
    ended = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", "schemathesis.toml"),
            *("run", f"{api}/openapi.json", "--url", api),
            *("--header", f"Authorization: Bearer {visitor.token}"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
            *("--checks", "all", "--exclude-checks", LEFT_OUT),
            *("--seed", "1", "--continue-on-failure", "--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        env=child_environment({"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-12_000:] + ended.stderr[-2_000:]
    assert "Coverage" in ended.stdout
