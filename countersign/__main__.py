"""The command line's entry: read the arguments, run one command, turn what happened into text and an exit code.

What a pipeline runs is the standard library, and ``cryptography`` where a key is used; `review`, `config`, `dev` and
what reads the archive need extras. Both are imported when they are needed. Exit codes: ``countersign.failures.Exit``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn, TextIO

from chalicelib.domain.errors import AccessError
from countersign.api import Clock
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure, failure_of
from countersign.output import Output
from countersign.settings import SystemClock, read_settings

Command = Callable[[Invocation], int]
Adder = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One command: what `--help` says of it, and where it is: the module in ``countersign.commands``, the function that
    runs it and the one that adds its arguments. ``remote``: it speaks to a service, so it takes --api."""

    about: str
    module: str
    run: str
    add: str = "add"
    remote: bool = True

    def load(self) -> tuple[Adder, Command]:
        found = importlib.import_module(f"countersign.commands.{self.module}")
        return getattr(found, self.add), getattr(found, self.run)


# Only a command that is called is imported: all of them together would take as long as the call itself.
_COMMANDS: Final[Mapping[str, _Entry]] = {
    "exec": _Entry("get a session, run a command in it, pass its exit code on", "run", "execute"),
    "request": _Entry("ask for a session and say what became of it", "request", "request"),
    "status": _Entry("say what a session is now", "status", "status"),
    "targets": _Entry("list what you may ask for; enroll: change a target's credential", "targets", "targets"),
    "env": _Entry("print a session's variables for a shell, a dotenv file or GitHub", "env", "env"),
    "agent": _Entry("run a command as a hop of its own, with none of the job's credentials", "agent", "agent"),
    "delegate": _Entry("make a ticket that lets one child in below this caller", "delegate", "delegate"),
    "key": _Entry("print the thumbprint of this caller's key, for a ticket that names it", "key", "key"),
    "revoke": _Entry("end a hop, a session or a chain with all below it, now", "revoke", "revoke"),
    "hold": _Entry("keep evidence whatever its retention: hold, lift, list", "hold", "hold"),
    "login": _Entry("log in as a person, at the identity provider", "login", "login"),
    "review": _Entry("who initiated, what was done, who approved, where it is recorded", "review", "review"),
    "reconcile": _Entry("match a target's own logins with our connections", "reconcile", "reconcile", remote=False),
    "verify": _Entry("check evidence or a copy of it, with public keys alone", "verify", "verify", remote=False),
    "evidence": _Entry("copy all evidence of a session or chain into a folder", "evidence", "evidence", remote=False),
    "query": _Entry("ask the archive a named question, on Athena or here", "query", "query", remote=False),
    "search": _Entry("find operations by their words and by what is known of them", "search", "search"),
    "restore-epoch": _Entry(
        "after a restore of the tables: make all of before void", "restore_epoch", "restore_epoch", remote=False
    ),
    "doctor": _Entry("look at a deployment from here, and say what to put right", "doctor", "doctor"),
    "replay": _Entry("play a session's recordings in this terminal, or write them as a page", "replay", "replay"),
}
_GROUPS: Final[Mapping[str, tuple[str, Mapping[str, _Entry]]]] = {
    "chain": (
        "show or verify a chain: who let whom in",
        {
            "show": _Entry("the tree of hops, as the service tells it", "chain", "show", "add_show"),
            "verify": _Entry("recompute every hash, signature and link", "chain", "verify", "add_verify"),
            "token": _Entry("verify the issuer's token that it began with", "chain", "token", "add_token"),
        },
    ),
    "keys": (
        "the history of the signing keys: operators change a key, auditors look",
        {
            "show": _Entry(
                "every purpose's keys, each introduced by the one before", "keys", "show", "add_show", remote=False
            ),
            "begin": _Entry("begin the history with the keys of now", "keys", "begin", "add_begin", remote=False),
            "rotate": _Entry("let another key sign from now on", "keys", "rotate", "add_rotate", remote=False),
        },
    ),
    "config": (
        "check a configuration bundle",
        {
            "check": _Entry(
                "say what is wrong with a bundle: file, line, remedy", "config_check", "config_check", remote=False
            )
        },
    ),
}
# Which extra brings a module that the base install lacks.
_EXTRA_OF: Final = {
    **dict.fromkeys(("chalice", "slack_bolt", "slack_sdk", "aws_lambda_powertools"), "dev"),
    "duckdb": "query",
    **dict.fromkeys(("postgast", "re2", "uvloop"), "broker"),
}
_EPILOG: Final = (
    "exit codes: the command's own (exec, agent); 1 something is to be put right (doctor, targets enroll); 77 denied; "
    "75 still pending; 69 unreachable; 64 usage; 65 what was read does not hold; 78 it holds, by keys that nobody "
    "vouched for. COUNTERSIGN_API says where the service is; the caller's OIDC token is COUNTERSIGN_ID_TOKEN or is "
    "fetched from the CI's own environment; "
    "COUNTERSIGN_IDENTITY names the file with its key, where it is not to be found by itself."
)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes end with our exit code for usage."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().split())
        raise Failure(Exit.USAGE, message, hint=f"{usage}; `{self.prog} --help` says more")


class _Version(argparse.Action):
    """Prints the installed version, looked up only when asked for: reading the metadata would slow every command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"countersign {version('countersign')}\n")
        parser.exit()


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of ``arguments``: a command that they do not name has no arguments in it."""
    # Before or after the command's name: without SUPPRESS the command's own default would undo what stood before it.
    plain = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    plain.add_argument("--json", action="store_true", help="one JSON object on stdout, for programs")
    caller = _Parser(add_help=False, argument_default=argparse.SUPPRESS, parents=[plain])
    caller.add_argument("--api", metavar="URL", help="where the service is (else COUNTERSIGN_API)")
    about_all = "Named, approved, recorded access to production."
    parser = _Parser(prog="countersign", description=about_all, epilog=_EPILOG, parents=[caller])
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND", parser_class=_Parser)

    def add(to: argparse._SubParsersAction[_Parser], name: str, entry: _Entry) -> None:
        sub = to.add_parser(name, help=entry.about, parents=[caller if entry.remote else plain])
        if name in arguments:
            adder, command = entry.load()
            sub.set_defaults(run=command)
            adder(sub)

    for name, entry in _COMMANDS.items():
        add(commands, name, entry)
    for group, (about, entries) in _GROUPS.items():
        parent = commands.add_parser(group, help=about)
        actions = parent.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
        for name, entry in entries.items():
            if group in arguments:
                add(actions, name, entry)
    commands.add_parser("dev", help="run the whole service on this machine, until Ctrl-C", add_help=False)
    return parser


def main(
    argv: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    out: TextIO | None = None,
    err: TextIO | None = None,
    clock: Clock | None = None,
) -> int:
    """Run one command and return its exit code. What is left out (all of it, but in tests) is the process's own."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, command = _split(arguments)
    output = Output(as_json="--json" in ours, colour=False, out=out, err=err)
    try:
        if ours[:1] == ["dev"]:
            from countersign.commands.dev import dev

            return dev(arguments[1:])
        options = _parser(ours).parse_args(ours, argparse.Namespace(json=False, api=""))
        options.command = command
        settings = read_settings(environment)
        output = Output(as_json=options.json, colour=settings.colour, out=out, err=err)
        invocation = Invocation(
            options=options,
            settings=replace(settings, api=options.api or settings.api),
            output=output,
            clock=SystemClock() if clock is None else clock,
        )
        run_command: Command = options.run
        return int(run_command(invocation))
    except Failure as failure:
        output.fail(failure)
        return int(failure.exit_code)
    except AccessError as error:
        output.fail(failure_of(error))
        return int(failure_of(error).exit_code)
    except ModuleNotFoundError as error:
        output.fail(_missing(error, "dev" if ours[:1] == ["dev"] else ""))
        return int(Exit.USAGE)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(Exit.DONE if ended.code is None else Exit.USAGE)
    except BrokenPipeError:
        sys.stderr.close()  # the reader left; the interpreter's own flush at exit would say so a second time
        return int(Exit.DONE)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return our arguments, and the command after the first ``--``, of which nothing is ours. Pure."""
    if "--" not in arguments:
        return list(arguments), []
    at = arguments.index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def _missing(error: ModuleNotFoundError, wanted: str) -> Failure:
    """Return what to install, in place of a traceback. ``wanted`` is the extra that the command itself needs."""
    name = (error.name or "").partition(".")[0]
    return Failure(
        Exit.USAGE,
        f"this command needs more than the base install (there is no {name or 'module'})",
        hint=f"pip install 'countersign[{wanted or _EXTRA_OF.get(name, 'audit')}]'",
    )


if __name__ == "__main__":
    sys.exit(main())
