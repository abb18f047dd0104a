"""asciinema-player out of the npm registry: fetched once, by its pinned hash, and never installed.

    python -m dev.web_player        # puts it beside the code, so that a wheel that is then built has it

Rules: npm's own client fetches (whatever registry it is set up for), runs none of the package's scripts, and what came
is kept only if it has the hash that ``countersign.web_player`` pins; a broken or another download is never there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import ConfigurationInvalid
from countersign.failures import Failure
from countersign.web_player import FILE, PACKAGE, PACKAGED, VERSION, read_player
from dev.output import say
from dev.settings import CACHE, child_environment, search_path

_FETCH_S: Final = 120  # half a megabyte over a slow line


def find_player(cached: Path = CACHE / FILE) -> Path:
    """Return where the package is; fetch it where it is not. Raises ConfigurationInvalid, saying what to do, where that
    does not work."""
    if not _good(cached):
        _fetch(cached)
    return cached


def place_player(into: Path = PACKAGED) -> Path:
    """Put the package where the command line looks for it, and return where. Idempotent."""
    found = find_player()
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=into.parent, delete=False) as file:
        file.write(found.read_bytes())
    scratch = Path(file.name)
    scratch.chmod(0o644)
    scratch.replace(into)
    return into


def _good(path: Path) -> bool:
    try:
        return read_player(path) is not None
    except Failure:
        return False


def _fetch(into: Path) -> None:
    npm = shutil.which("npm", path=search_path())
    if npm is None:
        raise ConfigurationInvalid(f"there is no npm here to fetch {PACKAGE} with: install npm, or bring {FILE}")
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        argv = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--pack-destination", scratch]
        try:
            done = subprocess.run(
                argv,
                cwd=scratch,
                env=child_environment(),
                capture_output=True,
                text=True,
                timeout=_FETCH_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigurationInvalid(f"npm could not fetch {PACKAGE}: {error}") from error
        came = Path(scratch, FILE)
        if done.returncode != 0 or not came.is_file():
            raise ConfigurationInvalid(f"npm could not fetch {PACKAGE} {VERSION}: {done.stderr[-300:]}")
        if not _good(came):
            raise ConfigurationInvalid(f"what npm fetched for {PACKAGE} {VERSION} is not what is pinned")
        came.replace(into)


def main() -> int:
    try:
        placed = place_player()
    except ConfigurationInvalid as error:
        say(error.public)
        return 1
    say(f"{PACKAGE} {VERSION} is at {placed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
