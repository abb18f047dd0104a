"""Makes ``tests/vectors/ssh``: ``TZ=UTC python -m tests.vectors.make_ssh_certificates`` (needs ``ssh-keygen``).

Certificates that OpenSSH made itself, and what it says of them: our verifier must read what the reference writes, good
and bad. The keys were made for this and are thrown away; only their public halves are kept.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

OUT: Final = Path(__file__).parent / "ssh" / "certificates.json"
VALID: Final = "20261102093000Z:20261102093500Z"  # tests' START and five minutes
_USER: Final = ("-n", "ses_x", "-V", VALID, "-O", "clear")

# Each certificate's name: the key it is over, the authority, and what ssh-keygen is told beside.
CASES: Final[dict[str, tuple[str, str, Sequence[str]]]] = {
    "good ed25519": ("ed25519", "ours", (*_USER, "-O", "permit-pty")),
    "good p256": ("p256", "ours", _USER),
    "good p384": ("p384", "ours", _USER),
    "good p521": ("p521", "ours", _USER),
    "good rsa 3072": ("rsa3072", "ours", _USER),
    "another authority": ("ed25519", "theirs", _USER),
    "an ed25519 authority": ("ed25519", "ed25519", _USER),
    "an rsa authority": ("ed25519", "rsa3072", _USER),
    "a host certificate": ("ed25519", "ours", ("-h", "-n", "ses_x", "-V", VALID)),
    "no principals": ("ed25519", "ours", ("-V", VALID, "-O", "clear")),
    "two principals": ("ed25519", "ours", ("-n", "ses_x,root", "-V", VALID, "-O", "clear")),
    "another principal": ("ed25519", "ours", ("-n", "ses_y", "-V", VALID, "-O", "clear")),
    "expired": ("ed25519", "ours", ("-n", "ses_x", "-V", "20261102092000Z:20261102093000Z", "-O", "clear")),
    "not yet valid": ("ed25519", "ours", ("-n", "ses_x", "-V", "20261102093001Z:20261102093500Z", "-O", "clear")),
    "force-command": ("ed25519", "ours", (*_USER, "-O", "force-command=uptime")),
    "source-address": ("ed25519", "ours", (*_USER, "-O", "source-address=127.0.0.1/32")),
    "verify-required": ("ed25519", "ours", (*_USER, "-O", "verify-required")),
    "an unknown critical option": ("ed25519", "ours", (*_USER, "-O", "critical:x@example.com=1")),
    "an rsa key of 1024 bits": ("rsa1024", "ours", _USER),
    "an rsa key of 2048 bits": ("rsa2048", "ours", _USER),
}
_KEYS: Final[dict[str, Sequence[str]]] = {
    "ours": ("-t", "ecdsa", "-b", "256"),
    "theirs": ("-t", "ecdsa", "-b", "256"),
    "ed25519": ("-t", "ed25519"),
    "p256": ("-t", "ecdsa", "-b", "256"),
    "p384": ("-t", "ecdsa", "-b", "384"),
    "p521": ("-t", "ecdsa", "-b", "521"),
    "rsa1024": ("-t", "rsa", "-b", "1024"),
    "rsa2048": ("-t", "rsa", "-b", "2048"),
    "rsa3072": ("-t", "rsa", "-b", "3072"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, kind in _KEYS.items():
            subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "", *kind, "-f", folder / key], check=True)
        made = {case: _certificate(folder, *told) for case, told in CASES.items()}
        told = {
            "command": "TZ=UTC python -m tests.vectors.make_ssh_certificates",
            "authority": _plain(folder / "ours.pub"),
            "certificates": made,
        }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(told, indent=1) + "\n")


def _certificate(folder: Path, key: str, authority: str, told: Sequence[str]) -> dict[str, str]:
    named = ("-I", "txn:t ses:s hop:h", "-z", "7")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(folder / authority), *named, *told, str(folder / f"{key}.pub")], check=True
    )
    return {"line": _plain(folder / f"{key}-cert.pub"), "public_key": _plain(folder / f"{key}.pub")}


def _plain(file: Path) -> str:
    """Return type and base64, without the comment."""
    return " ".join(file.read_text().split()[:2])


if __name__ == "__main__":
    main()
