"""Assembles the root of the broker's image: the interpreter, its libraries, the code, and nothing that could run else.

Run by ``broker/Dockerfile`` in its build stage: ``assemble.py VENV ROOT``. Rules: what is copied is what this stage's
interpreter and every extension module in VENV load, as the loader itself says (``ldd``), so that both architectures and
any base are treated alike; no shell, no package manager, no pip, no second program; each Debian package of which a
file was taken is named in ``var/lib/dpkg/status.d``, where scanners for known vulnerabilities look. Standard library
only: it runs before anything is installed. It does not decide what the broker needs: its locked requirements do.

Source: filesystem-hierarchy(7), ld.so(8); the place of ``status.d`` is that of Google's distroless images.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

UID: Final = 10001  # above Debian's own (< 1000) and its people's (< 10000): nobody on a host has it by chance
# Of the standard library, what a service never imports, and what would install or compile.
_LEFT_OUT: Final = (
    *("test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3", "pydoc_data"),
    *("venv", "site-packages", "dist-packages", "__pycache__", "config-*"),
    *("readline.*.so", "_curses*.so", "_*dbm.*.so", "nis.*.so"),  # terminals and old databases, each with its libraries
)
_INSTALLERS: Final = (
    *("pip", "pip-*", "setuptools", "setuptools-*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"),
    *("include", "__pycache__"),
)
_LOADED: Final = re.compile(r"(?:=> )?(/\S+) \(0x")
_ELF: Final = b"\x7fELF"
# Loaded by name while running and so seen by no ldd: glibc's, where a thread ends.
_BY_NAME: Final = ("libgcc_s.so.1",)
_ACCOUNTS: Final = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\ncountersign:x:{UID}:{UID}:countersign:/:/nonexistent\n",
    "etc/group": f"root:x:0:\ncountersign:x:{UID}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def main(venv: Path, root: Path) -> int:
    """Fill ``root``; return the exit status."""
    root.mkdir(parents=True)
    _links(root)
    _interpreter(root)
    shutil.copytree(venv, _at(root, venv), symlinks=True, ignore=shutil.ignore_patterns(*_INSTALLERS))
    for program in (_at(root, venv) / "bin").iterdir():
        if not program.name.startswith("python"):
            program.unlink()
    taken = [*_stdlib(root), *_libraries(root, venv), *_certificates(root)]
    _packages(root, taken)
    for name, text in _ACCOUNTS.items():
        _at(root, Path("/") / name).write_text(text, encoding="ascii")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)  # sticky, as everywhere; the umask would have a say in mkdir
    _compiled(root)
    subprocess.run(["/sbin/ldconfig", "-r", str(root)], check=True)
    return 0


def _at(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _links(root: Path) -> None:
    """Make the links that stand for whole folders (``/lib`` is ``usr/lib`` in Debian): the loader's path has one."""
    for link in (path for path in Path("/").iterdir() if path.is_symlink() and path.name.startswith("lib")):
        target = os.readlink(link)
        (root / target.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        (root / link.name).symlink_to(target)
    (root / "etc").mkdir()


def _interpreter(root: Path) -> None:
    """Copy the interpreter with the chain of links that leads to it: the environment's own points at one of them."""
    path = Path(getattr(sys, "_base_executable", sys.executable))
    while True:
        place = _at(root, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink():
            shutil.copy2(path, place)
            return
        target = os.readlink(path)
        place.symlink_to(target)
        path = Path(os.path.normpath(path.parent / target))


def _stdlib(root: Path) -> Iterator[Path]:
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        source = Path(folder)
        ignore = shutil.ignore_patterns(*_LEFT_OUT)
        shutil.copytree(source, _at(root, source), ignore=ignore, ignore_dangling_symlinks=True, dirs_exist_ok=True)
        yield source / "os.py"
    yield Path(os.path.realpath(sys.executable))


def _libraries(root: Path, venv: Path) -> Iterator[Path]:
    """Copy every shared library that something in ``root`` loads, until nothing new is found."""
    seen: set[str] = set()
    wanted = {line for name in _BY_NAME for line in _found_by_loader(name)}
    for file in _elf_files(root):
        # At its own place, not in the root: the origins that it names are relative to where it is.
        wanted |= set(_LOADED.findall(_said("ldd", f"/{file.relative_to(root)}")))
    for library in sorted(wanted):
        if library.startswith(f"{venv}/") or library in seen:
            continue
        seen.add(library)
        place = _at(root, Path(library))
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy2(library, place)
        yield Path(library)
    for name in ("ld.so.conf", "ld.so.conf.d"):
        source = Path("/etc") / name
        if source.is_dir():
            shutil.copytree(source, root / "etc" / name)
        elif source.exists():
            shutil.copy2(source, root / "etc" / name)


def _elf_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(_ELF)) == _ELF:
                    yield path


def _found_by_loader(name: str) -> list[str]:
    lines = _said("/sbin/ldconfig", "-p").splitlines()
    return [line.rpartition("=> ")[2] for line in lines if line.strip().startswith(f"{name} ")][:1]


def _certificates(root: Path) -> Iterator[Path]:
    """Copy the authorities that this machine trusts, and the settings of OpenSSL, where OpenSSL looks for them."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    found = ssl.get_default_verify_paths()
    for path in (bundle, Path(found.openssl_cafile), Path(found.openssl_cafile).with_name("openssl.cnf")):
        if path.exists():
            place = _at(root, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
            yield path


def _packages(root: Path, taken: Iterable[Path]) -> None:
    """Write the entry of each Debian package of which a file was taken."""
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True)
    for package in sorted({name for path in taken for name in _owners(path)}):
        (status / package.partition(":")[0]).write_text(_said("dpkg-query", "-s", package), encoding="utf-8")


def _owners(path: Path) -> list[str]:
    real = os.path.realpath(path)
    tried = (str(path), real, real.removeprefix("/usr"))  # dpkg knows a file by the name that it had when it was packed
    return [line.partition(": ")[0] for name in tried for line in _said("dpkg-query", "-S", name).splitlines()][:1]


def _compiled(root: Path) -> None:
    """Compile all: the file system is read-only, and a start without it takes seconds more."""
    compileall.compile_dir(
        root,
        maxlevels=64,
        quiet=2,
        stripdir=str(root),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=1,
    )


def _said(*command: str) -> str:
    """Return what a program of the build stage says; nothing where it fails: ldd does for what is no program."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
