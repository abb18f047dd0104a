"""``countersign dev``: starts the local stack, prints where everything is, and ends it on Ctrl-C or SIGTERM.

Rules: the ready file is written when everything answers, whole, and removed at the end; it holds the demo targets'
passwords, so only its owner may read it. Exit codes: 0 ended on request, 1 did not start or a part died, 130 broken
off while starting.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from chalicelib.domain.errors import AccessError, ConfigurationInvalid
from chalicelib.domain.problem import problems_of
from dev.local_stack import Stack, StackOptions
from dev.output import Style, complain, say, say_parts
from dev.settings import DEMO_BUNDLE

WATCH_S: Final = 0.5
TRIAL: Final = "select * from customers limit 3"


def main(arguments: Sequence[str]) -> int:
    """Run ``countersign dev`` until Ctrl-C or SIGTERM; return its exit code."""
    parser = argparse.ArgumentParser(prog="countersign dev", description="Run the whole local stack until Ctrl-C.")
    parser.add_argument(
        "--config", type=Path, default=DEMO_BUNDLE, metavar="DIR", help="a bundle (default: the demo's)"
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="keep logs and the CA certificate here")
    parser.add_argument("--no-targets", action="store_true", help="start no demo target")
    parser.add_argument(
        "--ready-file", type=Path, metavar="PATH", help="write where everything is, as JSON, when all is up"
    )
    given = parser.parse_args(arguments)
    if given.ready_file is not None:
        if not given.ready_file.parent.is_dir():
            parser.error(f"--ready-file: there is no folder {given.ready_file.parent}")
        given.ready_file.unlink(missing_ok=True)  # one of a stack that was killed says nothing about this one
    options = StackOptions(config=given.config, state=given.state, targets=not given.no_targets)
    stopped = threading.Event()
    try:
        with Stopping(stopped), Stack(options) as stack:
            return _run(stack, given.ready_file, stopped)
    except KeyboardInterrupt:
        return 130
    except ConfigurationInvalid as error:
        for problem in problems_of(error, file=str(given.config)):
            complain(problem.text())
        return 1
    except AccessError as error:
        complain(f"the stack did not start: {error.public}")
        return 1


def _run(stack: Stack, ready_file: Path | None, stopped: threading.Event) -> int:
    if ready_file is not None:
        write_ready_file(ready_file, stack.ready)
    try:
        _show(stack)
        while not stopped.wait(WATCH_S):
            dead = stack.died()
            if dead is not None:
                complain(f"{dead.name} has ended by itself, so the stack ends too:\n{dead.log_tail()}")
                return 1
        return 0
    except KeyboardInterrupt:
        return 0
    finally:
        say("\nStopping ...")
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


class Stopping:
    """Within it SIGINT, SIGTERM and SIGHUP end the stack: before ``stopped`` is awaited by an exception, so that a
    start is broken off; a second one changes nothing, so that the end is not broken off. Main thread only."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._signalled)

    def _signalled(self, _number: int, _frame: object) -> None:
        again = self._stopped.is_set()
        self._stopped.set()
        if not again:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def write_ready_file(path: Path, ready: Mapping[str, Any]) -> None:
    """Write ``ready`` whole or not at all, readable by its owner alone."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    scratch.touch(mode=0o600)
    scratch.write_text(json.dumps(ready, indent=2) + "\n")
    scratch.replace(path)


def _show(stack: Stack) -> None:
    ready = stack.ready
    say("Countersign is up. Ctrl-C ends it and leaves nothing behind.\n", Style.BOLD)
    postgres, ssh = ready["broker"]["postgres"], ready["broker"]["ssh"]
    lines = [
        ("API", ready["api"]),
        ("broker", f"{postgres['host']}:{postgres['port']} (PostgreSQL; verify it with {postgres['ca_file']})"),
        ("", f"{ssh['host']}:{ssh['port']} (ssh; verify it with {ssh['known_hosts_file']})"),
        ("Slack stand-in", f"{ready['slack']['page']}  <- open it to see and click the cards"),
        ("CI's issuer", f"{ready['issuer']['url']}  (POST {ready['issuer']['mint']})"),
        ("cluster's issuer", f"{ready['issuer']['kubernetes']['url']}  (POST {ready['issuer']['kubernetes']['mint']})"),
        ("people log in at", ready["issuer"]["people"]["device"]),
        (
            "AWS emulator",
            f"{ready['aws']['endpoint']}  (bucket {ready['aws']['bucket']}, region {ready['aws']['region']})",
        ),
        *((f"target {name}", f"{at['host']}:{at['port']}  (log {at['log']})") for name, at in ready["targets"].items()),
        ("logs", str(stack.folder / "logs")),
    ]
    for name, where in lines:
        say_parts((f"  {name:<20}", Style.DIM), (where, Style.PLAIN))
    command = Path(sys.executable).with_name("countersign")
    say("\nAnother shell becomes a job of the pipeline with:", Style.BOLD)
    say(f"  export COUNTERSIGN_API={ready['api']}")
    say(f"  export ACTIONS_ID_TOKEN_REQUEST_URL='{ready['issuer']['runner']}' ACTIONS_ID_TOKEN_REQUEST_TOKEN=local")
    target = next(iter(ready["targets"]), "TARGET")
    say(f"  {command} exec {target} --reason 'a first look' -- psql -c '{TRIAL}'")
    say("For curl, which needs the job's token itself (each is accepted once):", Style.BOLD)
    take = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"token\"])'"
    say(f"  COUNTERSIGN_ID_TOKEN=$(curl -s {ready['issuer']['mint']} -d '{{}}' | {take})")
    say("An auditor asks who did what, by the session's id that exec printed:", Style.BOLD)
    say(f"  . {stack.auditor_file} && {command} review ses_...")
