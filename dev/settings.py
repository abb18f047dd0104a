"""The settings of ``dev``: read from the environment once per process, here and nowhere else in ``dev``.

Rules: a process that the stack starts gets an environment made here, from an allow-list, so that nothing of the
person's own shell (AWS keys above all) reaches it. It does not know what any of the parts needs: they pass that.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.settings import SystemClock

ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / ".cache"  # what is downloaded once and kept: `make clean` removes it
DEMO_BUNDLE: Final = ROOT / "dev" / "demo" / "bundle"

# What a program needs to find its libraries, speak and sort; an AWS_*, PG* or SLACK_* of the person's is none of it.
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "TERM")

# Accounts that every Debian has, without a right of their own. PostgreSQL refuses to run as root, and initdb refuses a
# uid without a passwd entry; using one that is there leaves no account behind, even after a kill -9.
_THROW_AWAY: Final = ("nobody", "daemon")


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Under whom a server runs."""

    name: str
    uid: int
    gid: int


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process that the stack starts: the allow-listed part of ours, and ``extra``."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | dict(extra or {})


def search_path() -> str:
    """Return the folders where programs are looked for, as the shell has them."""
    return os.environ.get("PATH", os.defpath)


def colour_wanted(is_terminal: bool) -> bool:
    """Say whether text may carry colour: on a terminal, unless ``NO_COLOR`` is set (https://no-color.org)."""
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def own_account() -> Account:
    """Return the account that this process runs under; its name is not looked up, since it may have none."""
    return Account(name=str(os.geteuid()), uid=os.geteuid(), gid=os.getegid())


def server_account() -> Account | None:
    """Return the account that servers which refuse root run under, or None where we are not root: run as the caller.

    Raises ConfigurationInvalid where root has no such account on this machine.
    """
    if os.geteuid() != 0:
        return None
    for name in _THROW_AWAY:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=found.pw_uid, gid=found.pw_gid)
    raise ConfigurationInvalid(
        "PostgreSQL refuses to run as root, and this machine has no account named nobody or daemon"
    )


__all__ = ["CACHE", "DEMO_BUNDLE", "ROOT", "Account", "SystemClock", "child_environment", "colour_wanted"]
__all__ += ["own_account", "search_path", "server_account"]
