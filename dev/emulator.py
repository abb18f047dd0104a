"""The AWS emulators: started on a free port of 127.0.0.1, in an environment of their own, and ended.

The stack and the tests run on ministack; moto is the second opinion of ``tests/conformance`` (``docs/adr`` says why).
They live in ``<environment>/emulator``, since each pins a botocore that is not the product's to choose. It does not
make tables: that is ``dev.provision``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import TargetUnavailable
from dev.processes import Child, free_port, listening
from dev.settings import child_environment

ACCOUNT: Final = "123456789012"
ROOT_KEY: Final = "test"  # ministack's key without limits, with the same word as its secret
_BIN: Final = Path(sys.prefix) / "emulator" / "bin"
_READY_S: Final = 30.0  # it starts in about a second; a busy machine with two of them has needed ten
_PORT_TRIES: Final = 3  # a free port may be taken between our look and the emulator's bind


@dataclass(frozen=True, kw_only=True, slots=True)
class Emulator:
    """A running emulator. ``endpoint`` is its URL, ``account`` the account that its ARNs name."""

    name: str
    endpoint: str
    account: str
    child: Child

    def environment(self, region: str) -> Mapping[str, str]:
        """Return what botocore needs in its environment to reach this emulator with all rights."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": region,
            "AWS_ACCESS_KEY_ID": ROOT_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",  # else a missing key is looked for on a network address, for seconds
        }

    def stop(self) -> None:
        """End it and all that it started. What it held is gone."""
        self.child.stop()


def start_ministack(folder: Path) -> Emulator:
    """Start ministack with its data and log under ``folder``. Raises TargetUnavailable. Signatures and policies of IAM
    users are enforced, so the roles of the stack are real ones."""
    data = folder / "objects"
    data.mkdir(parents=True, exist_ok=True)
    extra = {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",  # its default is every address of the machine
        "IOT_MTLS_ENABLED": "0",  # else it opens port 8883
        "SFTP_ENABLED": "0",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "S3_DATA_DIR": str(data),
    }
    return _start("ministack", [str(_BIN / "ministack")], folder, extra, port_variable="GATEWAY_PORT")


def start_moto(folder: Path) -> Emulator:
    """Start moto, with its log under ``folder``. Raises TargetUnavailable. It checks no signature and no right."""
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).resolve().parent / "moto_server.py"
    argv = [str(_BIN / "python"), str(script), "-H", "127.0.0.1", "-p"]
    return _start("moto", argv, folder, {}, port_variable=None)


def _start(
    name: str, argv: list[str], folder: Path, extra: Mapping[str, str], *, port_variable: str | None
) -> Emulator:
    """Start it on a free port: named by an environment variable, else the command's last argument."""
    failed: TargetUnavailable | None = None
    for _ in range(_PORT_TRIES):
        port = free_port()
        environment = child_environment(extra)
        environment.pop("PYTHONPATH", None)  # it has packages of its own: ours must not stand in front of them
        if port_variable is not None:
            environment[port_variable] = str(port)
        command = argv if port_variable is not None else [*argv, str(port)]
        child = Child(name, command, environment=environment, log=folder / f"{name}.log", cwd=folder)
        try:
            child.wait_until(partial(listening, port), within_s=_READY_S)
        except TargetUnavailable as error:
            child.stop()
            failed = error
            continue
        return Emulator(name=name, endpoint=f"http://127.0.0.1:{port}", account=ACCOUNT, child=child)
    raise failed or TargetUnavailable(f"{name} could not be started")
