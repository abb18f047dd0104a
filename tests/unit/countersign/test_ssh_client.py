"""The ssh config: nothing that a service says becomes more than the one value that it is."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.secret import Secret
from countersign.failures import Failure
from countersign.sessions import Connect
from countersign.ssh_client import checked_certificate, checked_known_hosts, ssh_config, wrapper
from tests.fakes.api_server import HOST_KEY, SESSION

FOLDER = "/tmp/countersign-x"


def connect(host: str = "broker.example", port: int = 2222, user: str = SESSION) -> Connect:
    return Connect(
        protocol="ssh",
        host=host,
        port=port,
        ca_pem="",
        known_hosts="",
        user=user,
        secret=Secret(""),
        database="",
        env=(),
        command="",
    )


GOOD = ssh_config(connect(), "db-prod", FOLDER)
HEADS = ("Host", "Match")
WORDS = [line.split()[0] for line in GOOD.splitlines()]
# What ssh's own parser reads as more than one word, line or value, among what it does not.
hostile = st.text(alphabet=st.sampled_from("ab0.-:_/ \t\n\r\0\"'=%$~#\\,*!?@é\u2028"), max_size=24) | st.text(
    max_size=24
)


@given(host=hostile, user=hostile | st.just(SESSION), target=hostile | st.just("db-prod"), port=st.integers())
def test_no_value_becomes_a_line_or_an_option(host: str, user: str, target: str, port: int) -> None:
    """Attack: a newline or an option in a host name reaches the config. Either it is refused, or the file has exactly
    our lines, each our word and one value."""
    try:
        text = ssh_config(connect(host, port, user), target, FOLDER)
    except Failure:
        return
    lines = text.split("\n")
    assert lines.pop() == ""
    assert [line.split()[0] for line in lines] == WORDS
    heads = [line for line in lines if line.startswith(HEADS)]
    assert heads == [f"Host {target}", f'Match originalhost {target} user "!{user},*"', f"Host {target}"]
    rest = [line for line in lines if not line.startswith(HEADS)]
    (refusal,) = [line for line in rest if "ProxyCommand" in line and not line.endswith(" none")]
    assert refusal == next(line for line in GOOD.split("\n") if "/bin/sh" in line).replace("db-prod", target)
    assert all(line.startswith("    ") and len(line.split()) == 2 for line in rest if line != refusal)
    assert not set(host) & set("%$~#\"' \\\t\r\n")


@given(hostile)
def test_the_folder_has_a_grammar_too(folder: str) -> None:
    """TMPDIR is the job's own, and ssh expands `%` and splits at spaces in file names."""
    try:
        text = ssh_config(connect(), "db-prod", f"/{folder}")
    except Failure:
        return
    assert len(text.splitlines()) == len(GOOD.splitlines())


@given(st.text(alphabet=st.sampled_from("ab0.- \n\r\t\0*@,|#[]:"), max_size=30), st.sampled_from(["ssh-ed25519", "x"]))
def test_known_hosts_are_keys_under_our_own_name(host: str, kind: str) -> None:
    """Attack: a wildcard, a marker or a second line makes the client trust another key, or trust it for other hosts:
    what is written holds our name for the broker, a type and a key."""
    try:
        written = checked_known_hosts(f"{host} {kind} {HOST_KEY}\n")
    except Failure:
        return
    assert written == f"countersign-broker ssh-ed25519 {HOST_KEY}\n"


def test_several_host_keys() -> None:
    """A broker that changes its key shows both for a while."""
    assert len(checked_known_hosts(f"[h]:1 ssh-ed25519 {HOST_KEY}\nh ssh-ed25519 {HOST_KEY}").splitlines()) == 2


@given(st.text(max_size=60))
def test_a_certificate_is_one_line_of_one_type(text: str) -> None:
    """Attack: what the API calls a certificate holds a second line or another kind of key."""
    for line in (text, f"ssh-ed25519-cert-v01@openssh.com {text}"):
        with pytest.raises(Failure):
            checked_certificate(line, b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(32))


@given(st.text(alphabet=st.sampled_from("ab'\"$`\\;&| ()*?"), min_size=1, max_size=20))
def test_a_wrapper_runs_exactly_the_program_that_was_found(name: str) -> None:
    """A PATH may have any folder on it: its characters are never the shell's to read."""
    line = wrapper(f"/opt/{name}/ssh", f"{FOLDER}/config").splitlines()[1]
    assert shlex.split(line) == ["exec", f"/opt/{name}/ssh", "-F", f"{FOLDER}/config", "$@"]


def test_a_wrapper_hands_arguments_on_untouched(tmp_path: Path) -> None:
    """Remote commands have quotes and spaces; a wrapper that split them would run another command."""
    program = tmp_path / "with space"
    program.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    program.chmod(0o700)
    ours = tmp_path / "ssh"
    ours.write_text(wrapper(str(program), "/c"))
    ours.chmod(0o700)
    ended = subprocess.run([ours, "db-prod", "echo 'a  b' \"$X\"", ""], capture_output=True, text=True, check=True)
    assert ended.stdout == "<-F></c><db-prod><echo 'a  b' \"$X\"><>"


@pytest.mark.parametrize("program", ["ssh", "/opt/a\nb/ssh", ""])
def test_a_program_without_a_whole_path_is_none(program: str) -> None:
    """A name would be looked up on the PATH that begins with us: without end."""
    with pytest.raises(Failure):
        wrapper(program, "/c")
