"""The files of the images and of one machine, read and not run: ``tests/e2e/test_container.py`` takes minutes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker.leaving import END_S
from broker.settings import read_settings
from tests.unit.broker.test_settings import NEEDED

ROOT = Path(__file__).parents[2]
LINES = re.sub(r"\\\n", " ", (ROOT / "broker/Dockerfile").read_text(encoding="utf-8")).splitlines()
FARGATE_MOST_S = 120


def stage(name: str) -> list[str]:
    """Return the instructions of one stage."""
    start = next(number for number, line in enumerate(LINES) if line.endswith(f" AS {name}"))
    end = next((number for number in range(start + 1, len(LINES)) if LINES[number].startswith("FROM ")), len(LINES))
    return [line for line in LINES[start:end] if line and not line.startswith("#")]


def environment(name: str) -> dict[str, str]:
    said = [line for line in stage(name) if line.startswith("ENV ")]
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(said)))


def test_what_the_image_says_is_what_the_broker_reads() -> None:
    """A name that the broker does not know would be ignored: it would end sessions at once, and spool nowhere."""
    told = read_settings(NEEDED | environment("broker") | {"COUNTERSIGN_SSH_HOST_KEY_PEM": "x"})
    assert (told.listen_host, told.postgres_port, told.ssh_port) == ("0.0.0.0", 5432, 2222)
    assert told.spool == Path("/spool")
    known = (ROOT / "broker/settings.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in known for name in environment("broker") if name.startswith("COUNTERSIGN_"))


def test_a_drain_leaves_time_to_seal_before_fargate_kills() -> None:
    """A killed broker's records are sealed by the sweeper, minutes later and with a gap."""
    told = read_settings(NEEDED | environment("broker") | {"COUNTERSIGN_SSH_HOST_KEY_PEM": "x"})
    assert told.drain_s + END_S + 5 <= FARGATE_MOST_S


def test_the_image_runs_as_nobody_and_needs_no_shell() -> None:
    """There is none in it: an instruction in the shell's form could not start."""
    said = stage("broker")
    assert said[0] == "FROM scratch AS broker"
    assert "USER 10001:10001" in said
    assert 'VOLUME ["/spool"]' in said
    for line in said:
        if line.startswith(("ENTRYPOINT", "HEALTHCHECK", "CMD")):
            assert json.loads(line[line.index("[") :])[0] == "/opt/countersign/bin/python"


@pytest.mark.parametrize("target", ["build", "cli"])
def test_wheels_are_installed_by_hash_and_never_built(target: str) -> None:
    """A source distribution runs whatever it says while it is built."""
    (pip,) = [line for line in stage(target) if '"pip", "install"' in line]
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps"} <= set(json.loads(pip[pip.index("[") :]))


def test_only_what_an_image_is_made_of_is_sent_to_its_build() -> None:
    """A key or a state folder of whoever builds would be in a layer for ever."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if line and not line.startswith("#")]
    assert said[0] == "*"
    copied = {word for line in LINES if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]}
    sent = {line[1:] for line in said if line.startswith("!")}
    tops = {path.split("/")[0] for path in copied if not path.startswith("--")}
    assert tops == {path.split("/")[0] for path in sent}


def test_the_command_lines_lock_is_a_part_of_the_brokers() -> None:
    """Two versions of one library would be looked after by nobody."""

    def pins(file: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))

    assert pins("countersign/requirements.txt")
    assert pins("countersign/requirements.txt") <= pins("broker/requirements.txt")


def test_the_unit_is_one_that_systemd_takes_and_calls_hardened(tmp_path: Path) -> None:
    """A directive that it does not know is only a warning in a log, and its protection is not there."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("THE UNIT IS NOT CHECKED: this needs systemd-analyze")
    text = (ROOT / "infra/machine/countersign-broker.service").read_text(encoding="utf-8")
    unit = tmp_path / "countersign-broker.service"
    unit.write_text(text.replace("/opt/countersign/bin/python", sys.executable), encoding="utf-8")
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    weighed = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert weighed.returncode == 0, weighed.stdout[-300:]


def test_what_one_machine_is_told_the_broker_reads_and_can_end_in() -> None:
    """The unit and the compose file are followed literally: a wrong name is found at night."""
    text = (ROOT / "infra/machine/countersign-broker.service").read_text(encoding="utf-8")
    lines = (ROOT / "infra/machine/broker.env").read_text(encoding="utf-8").splitlines()
    shared = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    unit = dict(re.findall(r"^Environment=(\w+)=(\S+)$", text, re.MULTILINE))
    (grace,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    compose = yaml.safe_load((ROOT / "infra/machine/compose.yml").read_text(encoding="utf-8"))["services"]["broker"]
    for more, ends_s in ((unit, int(grace)), (compose["environment"], int(compose["stop_grace_period"].rstrip("s")))):
        told = read_settings(shared | more)
        assert told.drain_s + END_S + 5 <= ends_s
        assert not told.proxied
    assert (compose["read_only"], compose["cap_drop"]) == (True, ["ALL"])


def test_a_linter_has_nothing_to_say_of_the_dockerfile() -> None:
    """It knows traps that a build that succeeds does not show: a shell form, an unpinned stage, root at the end."""
    linter = Path(sys.prefix) / "bin" / "hadolint"
    command = [str(linter), "--no-color", str(ROOT / "broker/Dockerfile")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
