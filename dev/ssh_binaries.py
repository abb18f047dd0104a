"""Where OpenSSH's programs are, and the library that gives a throw-away server an account of its own.

Rules: each program is taken from this machine where it runs, else from Debian's packages, unpacked into
``.cache/openssh`` and never installed (``debian_packages``). sshd run by an account can log in that account alone, by
its name, into its home, with its shell; the accounts that a machine has for servers have none. ``libnss_wrapper``
(cwrap.org), loaded before sshd, shows it a passwd file of ours instead, which needs no root and leaves no account
behind.
Sources: sshd(8), nss_wrapper(1), ``../shared/reference/measured.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import ConfigurationInvalid
from dev.debian_packages import Packages, fetch, libraries, reachable, runs, said
from dev.settings import CACHE, search_path

_UNPACKED: Final = CACHE / "openssh"
_SYSTEM: Final = "/usr/local/sbin:/usr/sbin:/sbin"  # where sshd is, and which a person's own path often leaves out
_WRAPPER: Final = "libnss_wrapper.so"
# From 9.8 on sshd runs these for each connection, from a folder that is compiled in.
_HELPERS: Final = {"SshdSessionPath": "sshd-session", "SshdAuthPath": "sshd-auth"}
_USAGE: Final = (0, 1, 255)  # no version option in every release: usage is as good, 127 and a signal are not
PACKAGES: Final = Packages(
    name="sshd",
    roots=("openssh-server", "openssh-client", "libnss-wrapper"),
    programs=r"openssh-(?:server|client|sftp-server)",
    needed=("openssh-server", "openssh-client", "libnss-wrapper"),
    instead="openssh-server, openssh-client and libnss-wrapper",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SshBinaries:
    """The programs; ``wrapper`` is libnss_wrapper, ``helpers`` maps sshd's options to the programs that it runs.
    ``root`` is where they were unpacked, None where sshd is the machine's own. ``penalises``: this sshd shuts out an
    address from which logins fail (9.8 and later), unless it is told not to."""

    sshd: Path
    ssh: Path
    keygen: Path
    wrapper: Path
    helpers: Mapping[str, Path]
    root: Path | None
    penalises: bool

    def environment(self) -> dict[str, str]:
        """Return what sshd needs to find its libraries."""
        return {"LD_LIBRARY_PATH": libraries(self.root)} if self.root else {}

    def client_environment(self) -> dict[str, str]:
        """Return what ssh and ssh-keygen need: nothing where they are the machine's own."""
        return self.environment() if self.root is not None and self.ssh.is_relative_to(self.root) else {}

    def reachable_from(self, folder: Path) -> SshBinaries:
        """Return server programs that every account can reach: what lies in a closed checkout is copied into
        ``folder``. The clients stay where they are."""
        if self.root is None or reachable(self.sshd):
            return self
        root = folder / "openssh"
        shutil.copytree(self.root, root, symlinks=True)
        return replace(
            self,
            sshd=root / self.sshd.relative_to(self.root),
            wrapper=_moved(self.wrapper, self.root, root),
            helpers={option: _moved(path, self.root, root) for option, path in self.helpers.items()},
            root=root,
        )


def find_ssh(unpacked: Path = _UNPACKED) -> SshBinaries:
    """Return the programs; fetch Debian's where one is missing. Raises ConfigurationInvalid, naming what to install,
    where neither works."""
    found = _found(unpacked)
    if found is None:
        fetch(PACKAGES, unpacked)
        found = _found(unpacked)
    if found is None:
        raise ConfigurationInvalid("Debian's OpenSSH packages were unpacked, but hold no sshd that runs")
    return found


def _found(unpacked: Path) -> SshBinaries | None:
    wrapper = _machines_wrapper() or _unpacked_file(unpacked, f"usr/lib/*-linux-gnu*/{_WRAPPER}")
    server, root = _program("sshd", "-V", "usr/sbin", unpacked)
    client, _ = _program("ssh", "-V", "usr/bin", unpacked)
    keygen, _ = _program("ssh-keygen", "-?", "usr/bin", unpacked)
    if wrapper is None or server is None or client is None or keygen is None:
        return None
    return SshBinaries(
        sshd=server,
        ssh=client,
        keygen=keygen,
        wrapper=wrapper,
        helpers=_helpers(root) if root else {},
        root=root,
        penalises=_penalises(server, root),
    )


def _program(name: str, option: str, folder: str, unpacked: Path) -> tuple[Path | None, Path | None]:
    """Return where the program is, and the folder that it was unpacked to, if it was."""
    on_path = shutil.which(name, path=f"{search_path()}:{_SYSTEM}")
    if on_path is not None and runs([on_path, option], codes=_USAGE):
        return Path(on_path), None
    beside = unpacked / "root" / folder / name
    if beside.exists() and runs([beside, option], libraries(unpacked), codes=_USAGE):
        return beside, unpacked
    return None, None


def _penalises(sshd: Path, root: Path | None) -> bool:
    """Ask it whether it knows the option: it says which it does not, before anything else."""
    asked = [str(sshd), "-t", "-f", "/dev/null", "-o", "PerSourcePenalties=no"]
    return "Bad configuration option" not in said(asked, libraries(root) if root else "")


def _helpers(unpacked: Path) -> dict[str, Path]:
    found = {option: _unpacked_file(unpacked, f"usr/lib/openssh/{name}") for option, name in _HELPERS.items()}
    return {option: path for option, path in found.items() if path is not None}


def _machines_wrapper() -> Path | None:
    places = (*Path("/usr/lib").glob("*-linux-gnu*"), Path("/usr/lib64"), Path("/usr/lib"))
    return next((place / _WRAPPER for place in places if (place / _WRAPPER).exists()), None)


def _unpacked_file(unpacked: Path, pattern: str) -> Path | None:
    return next(iter(sorted((unpacked / "root").glob(pattern))), None)


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old) if path.is_relative_to(old) else path
