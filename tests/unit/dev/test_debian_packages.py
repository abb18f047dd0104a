"""What is fetched from Debian: the programs and their libraries, and only where apt can give all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chalicelib.domain.errors import ConfigurationInvalid
from dev import postgres_binaries, ssh_binaries
from dev.debian_packages import Packages, fetch, libraries, reachable, runs


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *(("openssh-server", True), ("openssh-client", True), ("openssh-sftp-server", True), ("libnss-wrapper", True)),
        *(("libwrap0", True), ("libssl3", True), ("libcrypt1", True), ("zlib1g", True), ("libpam0g", True)),
        *(("libc6", False), ("libperl5.36", False), ("libpam-modules", False), ("perl-base", False)),
        *(("adduser", False), ("openssh-sftp-server-extra", False), ("passwd", False), ("debconf", False)),
    ],
)
def test_only_sshd_and_its_libraries_are_unpacked(name: str, wanted: bool) -> None:
    """libc of another release beside the machine's own loader crashes; what only scripts need is dead weight."""
    assert ssh_binaries.PACKAGES.wanted([name, name]) == ([name] if wanted else [])


def test_a_closure_without_what_is_needed_is_not_complete() -> None:
    """Unpacking the client alone would end in a cache that never works and is never fetched again."""
    packages = ssh_binaries.PACKAGES
    assert packages.complete(["libnss-wrapper", "libssl3", "openssh-client", "openssh-server"])
    assert not packages.complete(["libnss-wrapper", "libssl3", "openssh-client"])
    assert postgres_binaries.PACKAGES.complete(["postgresql-15"])
    assert not postgres_binaries.PACKAGES.complete(["postgresql-client-15"])


def test_what_apt_does_not_know_leaves_no_half_cache_and_says_what_to_install(tmp_path: Path) -> None:
    """The next start must try again; a person without apt must learn what to do."""
    unknown = Packages(
        name="frobnicator", roots=("no-such-package-at-all",), programs="x", needed=("x",), instead="frob-server"
    )
    with pytest.raises(ConfigurationInvalid, match="frob-server"):
        fetch(unknown, tmp_path / "frob", lists=tmp_path)
    assert not (tmp_path / "frob").exists()
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_program_counts_only_where_it_runs(tmp_path: Path) -> None:
    """A shim on the path exits 127, and a file that is none cannot be run at all."""
    assert runs([sys.executable, "-c", "pass"])
    assert not runs([sys.executable, "-c", "raise SystemExit(127)"])
    assert runs([sys.executable, "-c", "raise SystemExit(1)"], codes=(0, 1))
    assert not runs([tmp_path / "missing"])


def test_libraries_are_found_under_both_of_debians_roots(tmp_path: Path) -> None:
    """libwrap and libcrypt of bookworm are in /lib, the rest in /usr/lib."""
    for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/openssh"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    found = libraries(tmp_path).split(":")
    assert found == [str(tmp_path / "root" / name) for name in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")]


def test_a_closed_folder_above_makes_a_program_unreachable(tmp_path: Path) -> None:
    """A checkout under /root is closed to the throw-away account, which must run what lies in it."""
    program = tmp_path / "closed" / "bin" / "sshd"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "closed").chmod(0o700)
    assert not reachable(program)
