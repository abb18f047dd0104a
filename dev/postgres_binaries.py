"""Where PostgreSQL's programs are: on this machine, or unpacked from Debian's packages into ``.cache/postgresql``.

Rules: the newest that runs is taken; nothing is installed (``debian_packages``).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import ConfigurationInvalid
from dev.debian_packages import Packages, fetch, libraries, runs
from dev.settings import CACHE, search_path

_DEBIAN_HOME: Final = Path("/usr/lib/postgresql")
_UNPACKED: Final = CACHE / "postgresql"
_SERVER: Final = ("initdb", "postgres")
PACKAGES: Final = Packages(
    name="PostgreSQL server",
    roots=("postgresql",),
    programs=r"postgresql-\d+|postgresql-client-\d+",
    needed=(r"postgresql-\d+",),
    instead="postgresql and psql",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PostgresBinaries:
    """The folder of the server's programs, where ``psql`` is, and what they need in their environment."""

    server: Path
    psql: Path
    libraries: str

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}


def find_postgres(unpacked: Path = _UNPACKED) -> PostgresBinaries:
    """Return PostgreSQL's programs, newest first where there are several; fetch Debian's where there are none.

    Raises ConfigurationInvalid, naming what to install, where neither works.
    """
    found = _installed(_DEBIAN_HOME) or _unpacked(unpacked)
    if found is not None:
        return found
    fetch(PACKAGES, unpacked)
    found = _unpacked(unpacked)
    if found is None:
        raise ConfigurationInvalid("Debian's PostgreSQL packages were unpacked, but hold no server that runs")
    return found


def _installed(home: Path) -> PostgresBinaries | None:
    on_path = shutil.which("postgres", path=search_path())
    folders = [*sorted(home.glob("*/bin"), key=_version, reverse=True)]
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        psql = _psql_of(folder)
        if psql is not None and _complete(folder) and runs([folder / "postgres", "--version"]):
            return PostgresBinaries(server=folder, psql=psql, libraries="")
    return None


def _unpacked(root: Path) -> PostgresBinaries | None:
    found = libraries(root)
    for folder in sorted(root.glob("root/usr/lib/postgresql/*/bin"), key=_version, reverse=True):
        if _complete(folder) and (folder / "psql").exists() and runs([folder / "postgres", "--version"], found):
            return PostgresBinaries(server=folder, psql=folder / "psql", libraries=found)
    return None


def _version(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdigit() else 0


def _complete(folder: Path) -> bool:
    return all((folder / program).exists() for program in _SERVER)


def _psql_of(folder: Path) -> Path | None:
    beside = folder / "psql"
    if beside.exists():
        return beside
    on_path = shutil.which("psql", path=search_path())
    return Path(on_path) if on_path else None
