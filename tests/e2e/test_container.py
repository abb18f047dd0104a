"""The container images, built and run here without an engine: buildah in a chroot, over a base of Debian's packages.

What is shown: the Dockerfile builds from nothing but the checkout and the locked wheels; what it says of user, command,
health check and settings works on a root that is read-only; a real psql runs through the container against the stack;
SIGTERM ends it as an orchestrator's does. What this cannot show: the base image of the registry, the other
architecture, an engine's own isolation (seccomp, cgroups). Needs root, buildah, debootstrap and pip's index; else it is
skipped, and says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from dev.local_stack import Stack
from dev.processes import Child, free_port, listening
from dev.settings import CACHE, ROOT, child_environment
from tests.e2e.test_faults import manifests
from tests.e2e.visitor import Visitor, connect, environment_of

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

KEPT: Final = CACHE / "container"  # the base's packages and the wheels: minutes of downloading
BASE: Final = "localhost/countersign-base:bookworm"
BUILD_S: Final = 600
# The container's own view: its root read-only, the spool its only place to write, the kernel's folders.
CONTAINED: Final = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount --bind "$2" "$1/spool" &&
mount -t proc -o ro proc "$1/proc" && mount --rbind /dev "$1/dev" &&
root=$1 user=$3 && shift 3 && exec chroot --userspec="$user" "$root" "$@"
"""


def _missing() -> str:
    absent = [tool for tool in ("buildah", "debootstrap", "unshare") if shutil.which(tool) is None]
    if os.geteuid() != 0:
        absent.insert(0, "root's rights")
    return ", ".join(absent)


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    return done.stdout


@dataclass(frozen=True)
class Images:
    """A store of images of the test's own."""

    folder: Path

    def buildah(self, *command: str | Path) -> str:
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        return run("buildah", *store, *command).strip()

    def build(self, target: str) -> str:
        tag = f"localhost/countersign-{target}:test"
        arguments = {"PYTHON_IMAGE": BASE, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "REVISION": "test"}
        self.buildah(
            *("bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "--file", "broker/Dockerfile"),
            *("--target", target, "--volume", f"{KEPT / 'wheels'}:/wheels:ro", "--tag", tag),
            *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
            ".",
        )
        return tag

    def configuration(self, tag: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", tag))["Docker"]["config"]
        return found

    def root(self, tag: str) -> Path:
        """Return the unpacked root of a new container of ``tag``, with what an engine mounts over."""
        root = Path(self.buildah("mount", self.buildah("from", "--pull-never", tag)))
        for name in ("proc", "dev"):
            (root / name).mkdir(exist_ok=True)
        return root


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """A store with the base in it. What was downloaded stays in the cache; the store goes."""
    if absent := _missing():
        pytest.skip(f"NO CONTAINER IS BUILT OR RUN: this needs {absent}")
    base, wheels = KEPT / "base", KEPT / "wheels"
    KEPT.mkdir(parents=True, exist_ok=True)
    if not (base / "etc/debian_version").exists():
        making = KEPT / "making"
        shutil.rmtree(making, ignore_errors=True)
        run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", making)
        making.rename(base)
    pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--only-binary=:all:")
    run(*pip, "--python-version", "3.11", "-r", "broker/requirements.txt", "-d", wheels)  # bookworm's python3 is 3.11
    made = Images(tmp_path_factory.mktemp("images"))
    try:
        container = made.buildah("from", "scratch")
        made.buildah("add", "-q", container, base, "/")
        made.buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
        made.buildah("commit", "-q", container, BASE)
        made.buildah("rm", container)
        yield made
    finally:
        with contextlib.suppress(AssertionError):
            made.buildah("rm", "--all")
        shutil.rmtree(made.folder, ignore_errors=True)


@dataclass(frozen=True)
class Image:
    """The broker's."""

    root: Path
    config: Mapping[str, Any]
    spool: Path

    def command(self, *words: str) -> list[str]:
        unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", CONTAINED, "sh"]
        return [*unshare, str(self.root), str(self.spool), str(self.config["User"]), *words]

    def environment(self, **more: str) -> dict[str, str]:
        said = dict(pair.split("=", 1) for pair in self.config["Env"])
        return {**said, **more, "PATH": f"{said['PATH']}:/usr/sbin:/usr/bin:/sbin:/bin"}  # for unshare and chroot


@pytest.fixture(scope="module")
def image(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Image:
    tag = images.build("broker")
    config = images.configuration(tag)
    spool = tmp_path_factory.mktemp("spool")
    os.chown(spool, *(int(part) for part in config["User"].split(":")))
    return Image(root=images.root(tag), config=config, spool=spool)


def test_the_broker_runs_as_its_image_says(image: Image, stack: Stack) -> None:
    """Someone who deploys it gets this: no rights, no place to write, keys from a secret store, and a drain."""
    visitor = Visitor.of(stack)
    session = visitor.session()
    beside = environment_of(stack.part("broker"))
    ports = free_port(), free_port()
    keys = {f"{name}_PEM": Path(beside[name]).read_text() for name in beside if name.startswith("COUNTERSIGN_TLS_")}
    keys["COUNTERSIGN_SSH_HOST_KEY_PEM"] = Path(beside["COUNTERSIGN_SSH_HOST_KEY"]).read_text()
    told = {name: value for name, value in beside.items() if name.startswith(("AWS_", "COUNTERSIGN_"))}
    for name in keys:
        del told[name.removesuffix("_PEM")]
    told |= {"COUNTERSIGN_LISTEN_HOST": "127.0.0.1", "COUNTERSIGN_LISTEN_POSTGRES_PORT": str(ports[0])}
    told |= {"COUNTERSIGN_LISTEN_SSH_PORT": str(ports[1])}
    environment = image.environment(**told, **keys)
    assert environment["COUNTERSIGN_DRAIN_S"] == "90"
    log = stack.folder / "logs" / "container.log"
    child = Child("container", image.command(*image.config["Entrypoint"]), environment=environment, log=log)

    def healthy() -> bool:
        check = image.command(*image.config["Healthcheck"]["Test"][1:])
        return subprocess.run(check, env=environment, capture_output=True, timeout=20, check=False).returncode == 0

    try:
        for port in ports:
            child.wait_until(partial(listening, port), within_s=60)
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
        assert "\nCapEff:\t0000000000000000\n" in status
        assert healthy()
        psql = stack.binaries().psql
        query = psql_environment(stack, session, ports[0])
        said = subprocess.run(
            [psql, "-XAtc", "SELECT count(*) > 0 FROM orders"], env=query, capture_output=True, text=True, check=False
        )
        assert (said.stdout, said.stderr) == ("t\n", "")
        assert list(image.spool.iterdir()), "it spools to its volume"
        with contextlib.closing(connect(stack, session, port=ports[0])) as working:
            working.execute("SELECT 1")
            os.kill(child.pid, signal.SIGTERM)
            while listening(ports[0]):
                assert child.alive()
            assert not healthy()
            assert working.execute("SELECT 2").fetchone() == (2,)
        assert child.wait(30) == 0, child.log_tail()
    finally:
        child.stop()
    assert [manifest["exit"] for manifest in manifests(stack, session["session_id"])] == ["client_closed"] * 2


def psql_environment(stack: Stack, session: Mapping[str, Any], port: int) -> dict[str, str]:
    told = session["connect"]
    return child_environment(
        {
            **stack.binaries().environment(),
            "PGHOST": "localhost",
            "PGPORT": str(port),
            "PGUSER": told["user"],
            "PGPASSWORD": told["secret"],
            "PGDATABASE": told["database"],
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": stack.ready["broker"]["postgres"]["ca_file"],
        }
    )


def test_nothing_else_can_be_run_in_it(image: Image) -> None:
    """What breaks out of the broker finds no shell, no package manager, no pip, no setuid, and nowhere to write."""
    programs = {path.name for folder in ("bin", "sbin") for path in image.root.glob(f"**/{folder}/*")}
    assert programs <= {"python", "python3", "python3.11"}
    assert not [path for path in image.root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o6000]
    tried = subprocess.run(
        image.command(image.config["Entrypoint"][0], "-c", "import os; os.open('/tmp/x', os.O_CREAT | os.O_WRONLY)"),
        env=image.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Read-only file system" in tried.stderr
    assert not list(image.root.glob("**/site-packages/pip*"))
    named = {path.name for path in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert {"libc6", "libssl3", "python3.11-minimal"} <= named  # for whoever looks for known vulnerabilities


def test_the_command_line_runs_in_its_image(images: Images) -> None:
    """A pipeline's runner starts a shell in it, as nobody, in a folder of the job's."""
    tag = images.build("cli")
    container = images.buildah("from", "--pull-never", tag)
    script = "id -u; cd /tmp && printf 'raise SystemExit(3)' > json.py; countersign --version"
    said = images.buildah("run", "--isolation", "chroot", container, "--", "sh", "-c", script)
    assert said.splitlines()[0] == "10001"
    assert said.splitlines()[1].startswith("countersign 0.")
