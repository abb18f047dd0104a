"""Programs out of Debian's packages: downloaded and unpacked into ``.cache``, for machines that have not got them.

Rules: nothing is installed and nothing is started by a package's scripts: ``apt-get download`` fetches the packages
(apt verifies them against the signed release file), ``dpkg-deb -x`` unpacks them, ``LD_LIBRARY_PATH`` finds their
libraries. No root is needed. What is unpacked is whole or not there.
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
from dev.settings import child_environment, search_path

_DOWNLOAD_S: Final = 300  # 60 MB over a slow line
_RUNS_S: Final = 10
# Libraries that are fetched along. libc6 belongs to the machine's own loader and is never mixed; perl's and the
# installer's serve the packages' scripts, which are not run; LLVM (two thirds of PostgreSQL's closure) only its JIT,
# which is off.
_LIBRARIES: Final = (
    r"zlib1g|lib(?!c6|c-|perl|debian|newt|slang|textwrap|elogind|llvm|z3|pam-modules|pam-runtime).*(?<!-perl)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Packages:
    """What to fetch. ``roots`` are the packages whose closure is taken; of it, those whose name matches ``programs``
    and all libraries are unpacked; each of ``needed`` must match one. ``instead`` says what a person may install."""

    name: str
    roots: tuple[str, ...]
    programs: str
    needed: tuple[str, ...]
    instead: str

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that are unpacked. Pure."""
        pattern = re.compile(rf"(?:{self.programs}|{_LIBRARIES})\Z")
        return sorted({name for name in names if pattern.match(name)})

    def complete(self, names: Sequence[str]) -> bool:
        """Return whether everything needed is among ``names``. Pure."""
        return all(any(re.fullmatch(need, name) for name in names) for need in self.needed)


def fetch(packages: Packages, into: Path, lists: Path = Path("/var/lib/apt/lists")) -> None:
    """Download and unpack into ``into/root``. It is made beside and moved there whole, so that a broken download is
    never taken for one. Raises ConfigurationInvalid, naming what to install, where that does not work."""
    if not all(shutil.which(tool, path=search_path()) for tool in ("apt-get", "apt-cache", "dpkg-deb")):
        raise ConfigurationInvalid(
            f"there is no {packages.name} on this machine, and it is no Debian to fetch one from: "
            f"install {packages.instead}"
        )
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f"{into.name}-") as scratch:
        _Apt(packages, Path(scratch), lists).unpack_into(Path(scratch, "whole", "root"))
        if into.exists():
            shutil.rmtree(into)
        Path(scratch, "whole").rename(into)
    into.chmod(0o755)  # the throw-away account reads it


def libraries(unpacked: Path) -> str:
    """Return the folders of the libraries under ``unpacked/root``, as ``LD_LIBRARY_PATH`` has them."""
    root = unpacked / "root"
    found = (path for path in (*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")) if path.is_dir())
    return ":".join(str(path) for path in sorted(found))


def runs(argv: Sequence[str | Path], library_path: str = "", *, codes: Sequence[int] = (0,)) -> bool:
    """Run it, and say whether it ended with one of ``codes``: a file on the path may be a shim that fails, and an
    unpacked one may lack a library."""
    done = _tried(argv, library_path)
    return done is not None and done.returncode in codes


def said(argv: Sequence[str | Path], library_path: str = "") -> str:
    """Run it, and return what it printed on standard error; the empty text where it could not be run."""
    done = _tried(argv, library_path)
    return "" if done is None else done.stderr


def _tried(argv: Sequence[str | Path], library_path: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            [str(part) for part in argv],
            env=child_environment({"LD_LIBRARY_PATH": library_path} if library_path else None),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RUNS_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def reachable(path: Path) -> bool:
    """Say whether every account can come to ``path``: a checkout under /root is closed to the throw-away one."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents)


class _Apt:
    """apt, kept inside ``scratch`` but for reading the machine's package lists, sources and keys."""

    def __init__(self, packages: Packages, scratch: Path, lists: Path) -> None:
        self._packages = packages
        self._scratch = scratch
        self._options = self._reading(lists)

    def unpack_into(self, root: Path) -> None:
        root.mkdir(parents=True)
        downloads = self._scratch / "packages"
        downloads.mkdir()
        self._run(["apt-get", *self._options, "download", *self._known()], downloads)
        for package in sorted(downloads.glob("*.deb")):
            self._run(["dpkg-deb", "-x", str(package), str(root)], downloads)

    def _known(self) -> list[str]:
        """Return the packages to unpack. A machine that never ran `apt-get update` gets package lists in ``scratch``,
        which needs no root and leaves the machine's own as they are. Raises ConfigurationInvalid."""
        wanted = self._closure()
        if not self._downloadable(wanted):
            self._options = self._reading(self._scratch / "lists")
            self._run(["apt-get", *self._options, "update"], self._scratch)
            wanted = self._closure()
        if not self._downloadable(wanted):
            raise ConfigurationInvalid(
                f"apt knows no {self._packages.name} on this machine: install {self._packages.instead}"
            )
        return wanted

    def _reading(self, lists: Path) -> list[str]:
        (self._scratch / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        if lists.is_relative_to(self._scratch):
            (lists / "partial").mkdir(parents=True, exist_ok=True)
        # As root apt would hand the download to an account of its own, which cannot write to our folder.
        own = {"Dir::State::Lists": lists, "Dir::Cache": self._scratch / "cache", "APT::Sandbox::User": "root"}
        return [part for name, value in own.items() for part in ("-o", f"{name}={value}")]

    def _closure(self) -> list[str]:
        only = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        no = [f"--no-{kind}" for kind in only]
        listed = self._run(
            ["apt-cache", *self._options, "depends", "--recurse", *no, *self._packages.roots],
            Path("/"),
            may_fail=True,  # that is how it says that it knows no such package
        )
        lines = listed.splitlines()
        return self._packages.wanted(line.strip() for line in lines if line and not line.startswith((" ", "<")))

    def _downloadable(self, names: Sequence[str]) -> bool:
        """Say whether what is needed is among ``names`` and apt knows where to get each: of what is installed it may
        know no more than the name."""
        if not self._packages.complete(names):
            return False
        found = self._run(["apt-get", *self._options, "--print-uris", "download", *names], Path("/"), may_fail=True)
        return len(found.splitlines()) >= len(names)

    def _run(self, argv: list[str], cwd: Path, *, may_fail: bool = False) -> str:
        instead = f"install {self._packages.instead} instead"
        try:
            done = subprocess.run(
                argv, cwd=cwd, env=child_environment(), capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigurationInvalid(f"{argv[0]} failed: {error}; {instead}") from error
        if done.returncode != 0 and not may_fail:
            raise ConfigurationInvalid(f"{argv[0]} failed; {instead}: {done.stderr[-400:]}")
        return done.stdout
