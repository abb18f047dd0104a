"""What a command line means: literal only where every shell says the same, and opaque for everything else."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.engines.ssh.command import MAX_LINE, literal_words, shell_act, understand, why_opaque
from chalicelib.domain.operation import Act

SHELLS = ("/bin/dash", "/bin/bash", "/bin/sh")
# No slash: should a line that is called literal ever be none, the shell below could write only into its own folder.
SYNTAX = "ab01._-+,:@%=^~ '\"\\$`!;&|<>(){}[]*?#\n\r\t\x00\x7f\x80é\u00a0"


def facts(act: Act) -> dict[str, Any]:
    return {"action": act.action, **dict(act.context)}


def action(line: bytes | str, *, terminal: bool = False) -> str:
    return understand(line, terminal=terminal).action


@pytest.mark.parametrize(
    ("line", "words", "program"),
    [
        ("uptime", ["uptime"], "uptime"),
        (b"df -h /var", ["df", "-h", "/var"], "df"),
        ("  cat   /var/log/syslog ", ["cat", "/var/log/syslog"], "cat"),
        ("/usr/bin/cat a", ["/usr/bin/cat", "a"], "cat"),
        ("/opt/app/bin/deploy --to=prod", ["/opt/app/bin/deploy", "--to=prod"], "/opt/app/bin/deploy"),
        ("/tmp/cat /etc/passwd", ["/tmp/cat", "/etc/passwd"], "/tmp/cat"),
        ("grep 'a b|c*' \"x;y\" z", ["grep", "a b|c*", "x;y", "z"], "grep"),
        ("echo a'b'\"c\"d ''", ["echo", "abcd", ""], "echo"),
        ("grep 'a\\.b' f", ["grep", "a\\.b", "f"], "grep"),
        ("date +%s", ["date", "+%s"], "date"),
        ("'ls' -l", ["ls", "-l"], "ls"),
        ("find /var/log -name '*.gz' -mtime +7", ["find", "/var/log", "-name", "*.gz", "-mtime", "+7"], "find"),
        ("systemctl restart orders", ["systemctl", "restart", "orders"], "systemctl"),
    ],
)
def test_a_literal_simple_command_is_its_words(line: bytes | str, words: list[str], program: str) -> None:
    """What will run is said by the line, so that a rule may be written on it."""
    assert facts(understand(line, terminal=False)) == {
        "action": "ssh:exec",
        "command": shlex.join(words),
        "program": program,
        "arguments": tuple(sorted(set(words[1:]))),
        "terminal": False,
    }
    assert why_opaque(line, terminal=False) == ""


@pytest.mark.parametrize(
    "line",
    [
        "cat $HOME/x",
        "cat ${IFS}x",
        "cat `id`",
        "cat $(id)",
        'cat "$(id)"',
        'cat "`id`"',
        'cat "a\\"b"',
        "cat *.log",
        "cat a?",
        "cat [ab]",
        "cat {a,b}",
        "cat ~/x",
        "cat ~root",
        "cat a\\ b",
        "cat 'a\\'",
        "cat 'a\\\\b'",
        "cat !!",
        "cat 'a!b'",
        'cat "a!b"',
        "cat a; id",
        "cat a;id",
        "cat a & id",
        "cat a && id",
        "cat a || id",
        "cat a | id",
        "cat a\nid",
        "cat a\rid",
        "cat a\x00id",
        "cat a\tb",
        "cat <(id)",
        "cat < a",
        "cat > a",
        "cat 2>a",
        "cat a # b",
        "cat =ls",
        "cat %1",
        "cat ^a^b",
        "(id)",
        "{ id; }",
        "A=b id",
        "PATH=/tmp:$PATH cat a",
        "'A=b' id",
        "~/cat a",
        "cat 'a",
        'cat "a',
        "cat \u00a0id",
        "cat ‐‐help",
        "cat naïve",
        "cat 'naïve'",
        b"cat '\x81\xff'",
        b"cat \xff",
        b"cat \xc2\xa0id",
        "",
        "   ",
        "''",
        "-c id",
        "x" * (MAX_LINE + 1),
    ],
)
def test_quoting_substitution_and_globs_make_argv_mean_something_else(line: bytes | str) -> None:
    """security.md: whatever a shell would change before it runs the line is opaque, and no rule sees words of it."""
    assert facts(understand(line, terminal=False)) == {
        "action": "ssh:opaque",
        "command": "",
        "program": "",
        "arguments": (),
        "terminal": False,
    }
    assert why_opaque(line, terminal=False).isprintable()
    assert why_opaque(line, terminal=False)


TAKE_WORK_FROM_ELSEWHERE = """
bash, sh -c 'cat a', dash script.sh, zsh, /bin/bash, /tmp/bash, busybox cat a, su - root, rbash,
python3 -c 1, python3.11 x.py, perl5.36.0 -e 1, ruby x, node x.js, awk 1 f, sed -n 1p f, php8.2 a, gawk-5.1 1,
xargs rm, env cat a, nohup cat a, timeout 5 cat a, sudo id, sudo -u postgres id, watch id, nice id,
psql -c x, mysql, mariadb, sqlite3 db, redis-cli, mongosh, psql-15, bc, ed f, crontab -,
vi f, vim.tiny f, vim.basic, nano f, less f, more f, man ls, emacs, top,
ssh host id, scp a b, rsync a b, nc -l 1, docker exec x id, kubectl get pods, telnet h,
git log, tar xf a, sort -o a b, curl -K a, apt-get install x, tcpdump -z x, make, gdb -p 1,
eval id, exec id, source f, command id, builtin id, trap id EXIT, printf -v 'a[0]' b, test a,
if true, time id, alias a=b, export A, x86_64-linux-gnu-gcc-12 -x c
"""


@pytest.mark.parametrize("line", [line.strip() for line in TAKE_WORK_FROM_ELSEWHERE.split(",")])
def test_a_program_that_takes_its_work_from_elsewhere(line: str) -> None:
    """Approve ``bash``, feed it a script: interpreters, clients that read their program from their input or a file,
    starters of others, editors, the shell's own words, whatever their version and folder."""
    assert action(line) == "ssh:opaque"
    assert why_opaque(line, terminal=False).startswith(f"{shlex.split(line)[0].rpartition('/')[2]}: ")


def test_an_opaque_line_that_is_literal_can_be_named_whole_by_its_permit() -> None:
    """It needs a permit of its own, and that one need not be for everything that cannot be read."""
    assert facts(understand("sudo systemctl restart orders", terminal=False)) == {
        "action": "ssh:opaque",
        "command": "sudo systemctl restart orders",
        "program": "sudo",
        "arguments": ("orders", "restart", "systemctl"),
        "terminal": False,
    }


@pytest.mark.parametrize(
    "expression", ["-exec id", "-execdir id", "-ok id", "-okdir id", "-delete", "-fprint f", "-fls f", "'-exec' id"]
)
def test_find_that_runs_or_writes_is_opaque(expression: str) -> None:
    """Its expression is a program: the harmless part of it is not."""
    assert action(f"find / -name x {expression}") == "ssh:opaque"


@pytest.mark.parametrize(
    "program",
    ["/tmp/cat", "/opt/x/bin/cat", "/usr/bin/../../tmp/cat", "./cat", "../cat", "/bin//cat", "/proc/self/cwd/cat"],
)
def test_a_file_of_the_accounts_own_is_not_the_systems_program(program: str) -> None:
    """Upload a script under a permitted name, then run it: ``/tmp/cat`` is not ``cat``, and a path that is written in
    another way than plainly is none that a rule may name."""
    assert facts(understand(f"{program} a", terminal=False))["program"] in (program, "")
    plain = program.startswith("/") and ".." not in program and "//" not in program
    assert action(f"{program} a") == ("ssh:exec" if plain else "ssh:opaque")


def test_a_forbidden_program_is_known_by_every_name_of_the_systems_folders() -> None:
    """A forbid on ``systemctl`` must not be passed by writing its folder."""
    for folder in ("", "/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"):
        assert facts(understand(f"'{folder}system'ctl stop x", terminal=False))["program"] == "systemctl"


def test_a_terminal_gives_a_pager_a_keyboard() -> None:
    """``ssh -t host journalctl`` runs ``less``, in which ``!sh`` is a shell."""
    assert action("journalctl -u orders") == "ssh:exec"
    assert action("journalctl -u orders", terminal=True) == "ssh:opaque"
    assert action("systemctl status", terminal=True) == "ssh:opaque"
    assert facts(understand("uptime", terminal=True))["terminal"] is True
    assert action("uptime", terminal=True) == "ssh:exec"


def test_a_shell_is_a_shell() -> None:
    """Whatever is typed into it: it has an action of its own, and nothing of it can be matched."""
    assert facts(shell_act(terminal=True)) == {
        "action": "ssh:shell",
        "command": "",
        "program": "",
        "arguments": (),
        "terminal": True,
    }


def test_lines_with_different_words_never_look_alike() -> None:
    """A rule on ``command`` that means two arguments must not be met by one with a blank in it."""
    assert facts(understand("cat a b", terminal=False))["command"] == "cat a b"
    assert facts(understand("cat 'a b'", terminal=False))["command"] == "cat 'a b'"
    assert facts(understand("cat a ''", terminal=False))["command"] == "cat a ''"


words = st.text(alphabet=[chr(code) for code in range(32, 127) if chr(code) not in "!\\"], max_size=8)


@settings(max_examples=300)
@given(st.lists(words.filter(lambda word: word[:1] not in "=%"), max_size=5))
def test_what_is_quoted_whole_means_itself(arguments: list[str]) -> None:
    """The way in which programs quote is understood, but for what some shell reads otherwise."""
    said = ("cat", *arguments)
    assert literal_words(shlex.join(said)) == said


lines = st.text(alphabet=st.sampled_from(SYNTAX), max_size=24) | st.text(
    alphabet=st.sampled_from("ab '\"=-"), max_size=16
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@settings(max_examples=400)
@given(line=lines)
@example(line="a'b'\"c\" ''")
@example(line="a 'b' \"it's\"")
def test_what_is_called_literal_is_what_real_shells_read(empty: Path, line: str) -> None:
    """The grammar against the shells themselves: the same words from ``shlex``, dash and bash, in an empty folder and
    with no PATH; anything else may only be opaque."""
    said = literal_words(line)
    if not said:
        assert action(line) == "ssh:opaque"
        return
    assert shlex.split(line) == list(said)
    for shell in SHELLS:
        told = f"printf '%s\\0' {line}"
        ran = subprocess.run([shell, "-c", told], capture_output=True, check=True, env={}, cwd=empty, timeout=10)
        assert ran.stdout.decode() == "".join(f"{word}\0" for word in said)
        assert ran.stderr == b""
    assert list(empty.iterdir()) == []


@settings(max_examples=400)
@given(st.binary(max_size=80) | st.text(max_size=80))
def test_any_junk_is_at_most_opaque(line: bytes | str) -> None:
    """An exec request is bytes of a stranger: nothing raises, and what is not plain ASCII is never literal."""
    act = facts(understand(line, terminal=True))
    assert act["action"] in ("ssh:exec", "ssh:opaque")
    if isinstance(line, bytes):
        line = line.decode("latin-1")
    if not (line.isascii() and line.isprintable()):
        assert act["command"] == ""


def test_hostile_lines_take_linear_time() -> None:
    """The parser runs in the connection's own thread, before anything is decided."""
    started = time.perf_counter()
    for line in ("a" * 4000 + "!", "a " * 2000 + "!", "'a'" * 1300 + "!", "a'" * 2000, "a1" * 2000, "1" * 4000 + "a1"):
        understand(line, terminal=True)
    assert time.perf_counter() - started < 1
