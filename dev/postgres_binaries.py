"""Where PostgreSQL's programs are: on this machine, or unpacked from Debian's packages into ``.cache/postgresql``.

Rules: nothing is installed and nothing is started by a package's scripts: ``apt-get download`` fetches the packages
(apt verifies them against the signed release file), ``dpkg-deb -x`` unpacks them, ``LD_LIBRARY_PATH`` finds their
libraries. No root is needed. The closure is what the server and ``psql`` need and the machine has not got.
Sources: apt-get(8), dpkg-deb(1), ``../shared/reference/measured.md``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import ConfigurationInvalid
from dev.settings import CACHE, child_environment, search_path

_DEBIAN_HOME: Final = Path("/usr/lib/postgresql")
_UNPACKED: Final = CACHE / "postgresql"
_SERVER: Final = ("initdb", "postgres")
_DOWNLOAD_S: Final = 300  # 60 MB over a slow line
# The server, its client, and the libraries that they load. libc6 belongs to the machine's own loader and is never
# mixed; perl's and the installer's serve the packages' scripts, which are not run; LLVM (two thirds of it all) only
# JIT, which is off.
_WANTED: Final = re.compile(
    r"(postgresql-\d+|postgresql-client-\d+|zlib1g|lib(?!c6|c-|perl|debian|newt|slang|textwrap|elogind|llvm|z3).*(?<!-perl))\Z"
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
    _fetch(unpacked)
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
        if psql is not None and _complete(folder) and _runs(folder / "postgres", ""):
            return PostgresBinaries(server=folder, psql=psql, libraries="")
    return None


def _unpacked(root: Path) -> PostgresBinaries | None:
    for folder in sorted(root.glob("root/usr/lib/postgresql/*/bin"), key=_version, reverse=True):
        libraries = ":".join(str(path) for path in _library_folders(root / "root"))
        if _complete(folder) and (folder / "psql").exists() and _runs(folder / "postgres", libraries):
            return PostgresBinaries(server=folder, psql=folder / "psql", libraries=libraries)
    return None


def _library_folders(root: Path) -> list[Path]:
    return sorted(
        path for path in (*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")) if path.is_dir()
    )


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


def _runs(program: Path, libraries: str) -> bool:
    """Run it: a file on the path may be a shim that fails, and an unpacked one may lack a library."""
    try:
        done = subprocess.run(
            [program, "--version"],
            env=child_environment({"LD_LIBRARY_PATH": libraries} if libraries else None),
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _fetch(into: Path, lists: Path = Path("/var/lib/apt/lists")) -> None:
    """Download and unpack beside ``into`` and move it there whole, so that a broken download is never taken for one."""
    if not all(shutil.which(tool, path=search_path()) for tool in ("apt-get", "apt-cache", "dpkg-deb")):
        raise ConfigurationInvalid(
            "there is no PostgreSQL on this machine, and it is no Debian to fetch one from: install postgresql and psql"
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix="postgresql-") as scratch:
        packages, whole = Path(scratch, "packages"), Path(scratch, "whole")
        packages.mkdir()
        (whole / "root").mkdir(parents=True)
        options, wanted = _known_to_apt(Path(scratch), lists)
        _run(["apt-get", *options, "download", *wanted], packages)
        for package in sorted(packages.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(whole / "root")], packages)
        if into.exists():
            shutil.rmtree(into)
        whole.rename(into)
    into.chmod(0o755)  # the throw-away account reads it


def _known_to_apt(scratch: Path, lists: Path) -> tuple[list[str], list[str]]:
    """Return apt's options, and the packages to unpack. A machine that never ran `apt-get update` gets package lists in
    ``scratch``, which needs no root and leaves the machine's own as they are. Raises ConfigurationInvalid."""
    options = _options(lists, scratch)
    wanted = _closure(options)
    if not _downloadable(options, wanted):
        options = _options(scratch / "lists", scratch)
        _run(["apt-get", *options, "update"], scratch)
        wanted = _closure(options)
    if not _downloadable(options, wanted):
        raise ConfigurationInvalid("apt knows no PostgreSQL server on this machine: install postgresql and psql")
    return options, wanted


def _options(lists: Path, scratch: Path) -> list[str]:
    """Return options that keep apt inside ``scratch``, but for reading ``lists`` and the machine's sources and keys."""
    (scratch / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    if lists.is_relative_to(scratch):
        (lists / "partial").mkdir(parents=True, exist_ok=True)
    # As root apt would hand the download to an account of its own, which cannot write to our folder.
    own = {"Dir::State::Lists": lists, "Dir::Cache": scratch / "cache", "APT::Sandbox::User": "root"}
    return [part for name, value in own.items() for part in ("-o", f"{name}={value}")]


def _closure(options: Sequence[str]) -> list[str]:
    only = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    listed = _run(
        ["apt-cache", *options, "depends", "--recurse", *(f"--no-{kind}" for kind in only), "postgresql"],
        Path("/"),
        may_fail=True,  # that is how it says that it knows no such package
    )
    return wanted_packages(line.strip() for line in listed.splitlines() if line and not line.startswith((" ", "<")))


def _downloadable(options: Sequence[str], packages: Sequence[str]) -> bool:
    """Say whether a server is among ``packages`` and apt knows where to get each: of what is installed it may know no
    more than the name."""
    if not any(re.fullmatch(r"postgresql-\d+", name) for name in packages):
        return False
    found = _run(["apt-get", *options, "--print-uris", "download", *packages], Path("/"), may_fail=True)
    return len(found.splitlines()) >= len(packages)


def wanted_packages(names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that are unpacked. Pure."""
    return sorted(name for name in names if _WANTED.match(name))


def _run(argv: list[str], cwd: Path, *, may_fail: bool = False) -> str:
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=child_environment(), capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationInvalid(f"{argv[0]} failed: {error}; install postgresql and psql instead") from error
    if done.returncode != 0 and not may_fail:
        raise ConfigurationInvalid(f"{argv[0]} failed; install postgresql and psql instead: {done.stderr[-400:]}")
    return done.stdout
