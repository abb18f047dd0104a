"""The Lambda package: how long its import takes, against Chalice alone, and how large the zip is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import Row, bounded, compare

ROOT = Path(__file__).resolve().parent.parent
ZIP_LIMIT_MB = 50.0  # Lambda's limit for a direct upload of a zip, which is what `chalice deploy` does
IMPORT_RATIO = (
    8.0  # JOSE and pydantic, which nearly every route needs, cost most; AWS, Slack and Cedar wait for their first use
)


def _import_ms(module: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT, capture_output=True)
    return (time.perf_counter() - started) * 1000


def _zip_mb() -> float:
    with tempfile.TemporaryDirectory() as out:
        command = [str(Path(sys.executable).parent / "chalice"), "package", "--stage", "dev", out]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**_environment(), "AWS_DEFAULT_REGION": "us-east-1"}
        )
        # Chalice says so and exits 0 when a wheel is missing: the zip would be small and broken.
        if done.returncode != 0 or "Could not install dependencies" in done.stdout + done.stderr:
            raise RuntimeError(f"chalice package failed: {done.stderr[-2000:]}")
        return (Path(out) / "deployment.zip").stat().st_size / 1e6


def _environment() -> dict[str, str]:
    return dict(os.environ)


def rows() -> list[Row]:
    """Return the import row and the size row. Needs the package index for the second."""
    _import_ms("app")  # once unmeasured, so that neither side pays for writing byte code
    return [
        compare(
            "import of app.py, fresh process",
            "ms",
            lambda: _import_ms("app"),
            "import chalice",
            lambda: _import_ms("chalice"),
            f"at most {IMPORT_RATIO:g} x chalice alone",
            IMPORT_RATIO,
        ),
        bounded("Lambda package, zipped", "MB", _zip_mb(), "direct upload limit", ZIP_LIMIT_MB),
    ]
