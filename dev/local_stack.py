"""The whole local stack: emulator, targets, issuer, Slack stand-in, functions, API, broker, pumps; started, shown,
ended.

Rules: each part is started once and ended in the opposite order, whatever happened, a failed start included; what died
ends the stack. Every part runs with its own role's credentials and an environment made for it. Nothing outlives the
stack but the folder that ``state`` names (logs and the authority's certificate). It prints nothing: ``dev.stack`` is
the command.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from boto3.session import Session

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import ConfigurationInvalid, StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import CERTIFICATE
from chalicelib.domain.verifier import new_session_secret
from chalicelib.settings import StoreSettings
from chalicelib.store.approvals import ANSWERS, ASKS
from dev.authority import ServerIdentity, make_server_identity
from dev.configuration import API, Configuration, Served, read_configuration, with_addresses
from dev.emulator import ACCOUNT, Emulator, start_ministack
from dev.invocation import Callers
from dev.issuers import Issuers
from dev.lambdas import Answered, Function, Lambdas, start_host
from dev.log_pump import AUDITED, BROKER_GROUP, FUNCTIONS_GROUP, LogPump
from dev.part_settings import (
    BOT_TOKEN,
    BROKER_HOST,
    BUCKET,
    DIGEST_BUCKET,
    FUNCTION_PREFIX,
    PREFIX,
    REGION,
    SIGNING_SECRET,
    Doors,
    approval_url,
    aws_settings,
    listening_settings,
    plane_settings,
)
from dev.postgres_binaries import PostgresBinaries, find_postgres
from dev.preparation import Order, Prepared, read_prepared
from dev.processes import Child, free_port, listening
from dev.pump import Pump, Pumps, StreamPump, Windowed, scheduled_event
from dev.roles import Role
from dev.settings import DEMO_BUNDLE, ROOT, SystemClock, child_environment
from dev.slack_standin import Member, SlackStandin
from dev.targets import NAMES, Starting, Targets

FUNCTIONS: Final = (
    *("sign", "decide", "mint", "review", "post_cards", "reconcile", "watch_targets", "watch_cloud"),
    *("archive_items", "sweep", "digest", "events", "sign_off", "vouch_copy", "open_token"),
    *("hold", "retain"),
)
SELDOM: Final = (
    "open_token",
    "review",
    "sign_off",
    "vouch_copy",
    "reconcile",
    "watch_targets",
    "watch_cloud",
    "sweep",
    "digest",
    "events",
    "hold",
    "retain",
)  # these start at their first call, not with the stack
ARCHIVE_BATCH: Final = 100  # Lambda's own default for a stream
PREPARED_WITHIN_S: Final = 60
READY_WITHIN_S: Final = 60.0  # each part answers within seconds; a loaded machine gets a minute


@dataclass(frozen=True, kw_only=True, slots=True)
class StackOptions:
    """``config``: a bundle's directory, else the demo's. ``state``: a folder that stays, else a temporary one.
    ``between``: given the emulator's URL, returns the one that the parts are told: whoever counts their calls."""

    config: Path = DEMO_BUNDLE
    state: Path | None = None
    targets: bool = True
    between: Callable[[str], str] = lambda url: url


class Stack:
    """``with Stack(options) as stack:`` starts everything; :attr:`ready` says where it is. The body runs when all is
    up.

    Raises ConfigurationInvalid for a bundle that does not load, TargetUnavailable or StoreUnavailable, with the end of
    the log, for a part that does not start; what had started is ended by then.
    """

    def __init__(self, options: StackOptions) -> None:
        self._options = options
        self._clock = SystemClock()
        self._ending = ExitStack()
        self._children: list[Child] = []
        self.ready: dict[str, Any] = {}
        self.folder = Path()
        self.targets = Targets()
        self.callers: dict[str, str] = {}  # the role of each access key
        self._functions: dict[str, Function] = {}
        self._reconcile: Function | None = None
        self._digest: Function | None = None
        self._sweep: Function | None = None
        self._watch_cloud: Function | None = None
        self._retain: Function | None = None

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def died(self) -> Child | None:
        """Return a part that has ended by itself, or None."""
        return next((child for child in self._children if not child.alive()), None)

    def part(self, name: str) -> Child:
        """Return a running part by its name: ``api``, ``broker``, ``ministack``. Raises KeyError."""
        found = next((child for child in self._children if child.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def binaries(self) -> PostgresBinaries:
        """Return the PostgreSQL programs, ``psql`` among them, that this machine has or that were unpacked for it."""
        return find_postgres()

    def reconcile(self) -> Answered:
        """Run what the schedule runs every minute, now, and return its answer. Raises StoreUnavailable."""
        if self._reconcile is None:
            raise StoreUnavailable("the stack is not running")
        return self._reconcile.invoke(scheduled_event(self._clock, f"{FUNCTION_PREFIX}reconcile", ACCOUNT, REGION))

    def invoked(self) -> dict[str, int]:
        """Return how often each function was called so far, by whomever."""
        return {name: function.invoked for name, function in self._functions.items()}

    def digest(self) -> Answered:
        """Make the hourly digests that are due, and return the function's answer. Raises StoreUnavailable."""
        if self._digest is None:
            raise StoreUnavailable("the stack is not running")
        return self._digest.invoke(scheduled_event(self._clock, f"{FUNCTION_PREFIX}digest", ACCOUNT, REGION))

    def sweep(self) -> Answered:
        """Seal what dead brokers left, and return the function's answer. Raises StoreUnavailable."""
        if self._sweep is None:
            raise StoreUnavailable("the stack is not running")
        return self._sweep.invoke(scheduled_event(self._clock, f"{FUNCTION_PREFIX}sweep", ACCOUNT, REGION))

    def retain(self) -> Answered:
        """Carry legal holds out and mark what is over, and return the function's answer. Raises StoreUnavailable."""
        if self._retain is None:
            raise StoreUnavailable("the stack is not running")
        return self._retain.invoke(scheduled_event(self._clock, f"{FUNCTION_PREFIX}retain", ACCOUNT, REGION))

    def cloud(self, event: Mapping[str, Json]) -> Answered:
        """Deliver what EventBridge would of CloudTrail's, which no emulator writes. Raises StoreUnavailable."""
        if self._watch_cloud is None:
            raise StoreUnavailable("the stack is not running")
        return self._watch_cloud.invoke(event)

    def _start(self) -> None:
        written = read_configuration(self._options.config)
        self.folder = self._make_folder()
        pool = self._ending.enter_context(ThreadPoolExecutor(max_workers=2, thread_name_prefix="start"))
        starting = Starting(self._served(written), self._log, pool)
        self._ending.callback(starting.stop)
        emulator = start_ministack(self._subfolder("emulator"))
        self._ending.callback(emulator.stop)
        self._children.append(emulator.child)
        api_port, doors = free_port(), Doors(postgres=free_port(), ssh=free_port())
        api_url = f"http://127.0.0.1:{api_port}"
        issuers = Issuers(self._clock, api=api_url, people=written.bundle.people)
        issuers.start()
        self._ending.callback(issuers.stop)
        self.targets = starting.result()
        self._children += self.targets.children
        served = Served(places={API: api_url, **issuers.places()}, targets=self.targets.entries())
        configuration = with_addresses(written, served)
        slack, slack_secrets = self._start_slack(configuration, f"{api_url}/slack/events")
        prepared = self._prepare(emulator, configuration, slack_secrets)
        self.callers = {role.access_key: name for name, role in prepared.roles.items()}
        if self.targets.db:
            self.targets.db.trust(prepared.ssh_authority)
        identity = make_server_identity(self.folder / "authority", self._clock)
        lambda_port = free_port()
        shared = {
            **aws_settings(self._options.between(emulator.endpoint), f"http://127.0.0.1:{lambda_port}"),
            **plane_settings(api_url, doors, identity, slack),
        }
        lambdas, functions = self._start_functions(prepared, emulator, shared, lambda_port)
        self._functions = functions
        api = self._start_part("api", ["dev.api_server", str(api_port)], prepared, shared)
        broker = self._start_part("broker", ["broker"], prepared, shared | listening_settings(doors, identity))
        for function in functions.values():
            function.warm()
        lambdas.start()
        api.wait_until(lambda: _healthy(f"{api_url}/healthz"), within_s=READY_WITHIN_S)
        for port in (doors.postgres, doors.ssh):
            broker.wait_until(partial(listening, port), within_s=READY_WITHIN_S)
        self._start_pumps(emulator, prepared, functions)
        self.ready = {
            "api": api_url,
            "approvals": approval_url(api_url),
            "broker": _broker_part(doors, identity),
            "keys": _keys_part(api_url),
            "issuer": issuers.described(),
            "slack": _slack_part(slack, configuration),
            "aws": _aws_part(emulator, prepared, api_url),
            "targets": self.targets.described(),
        }
        self._write_auditor(self.ready["aws"]["auditor"])

    # The parts.

    def _make_folder(self) -> Path:
        given = self._options.state
        if given is not None:
            given.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in ("emulator", "logs"):  # what an earlier stack kept here, or lost when it was killed
                shutil.rmtree(given / left, ignore_errors=True)
            return given.resolve()
        made = Path(tempfile.mkdtemp(prefix="countersign-dev-"))
        self._ending.callback(shutil.rmtree, made, ignore_errors=True)
        return made

    @property
    def auditor_file(self) -> Path:
        """What an auditor's shell reads before `countersign review`; it holds a key of the emulator."""
        return self.folder / "auditor.env"

    def _write_auditor(self, environment: Mapping[str, str]) -> None:
        self.auditor_file.unlink(missing_ok=True)  # made anew, since touch leaves the rights of what is there
        self.auditor_file.touch(mode=0o600)
        self.auditor_file.write_text("".join(f"export {k}={shlex.quote(v)}\n" for k, v in environment.items()))

    def _subfolder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _log(self, name: str) -> Path:
        return self._subfolder("logs") / f"{name}.log"

    def _served(self, configuration: Configuration) -> list[str]:
        return [name for name in NAMES if self._options.targets and name in configuration.bundle.targets]

    def _start_slack(self, configuration: Configuration, events_url: str) -> tuple[SlackStandin, dict[str, str]]:
        token, signing = Secret(f"xoxb-{new_session_secret().expose()}"), new_session_secret()
        members = [
            Member(user_id=person.slack_user, team=person.slack_team, name=person.name, groups=person.groups)
            for person in configuration.bundle.people
        ]
        slack = SlackStandin(self._clock, members=members, bot_token=token, signing_secret=signing)
        slack.send_clicks_to(events_url)
        slack.start()
        self._ending.callback(slack.stop)
        return slack, {BOT_TOKEN: token.expose(), SIGNING_SECRET: signing.expose()}

    def _prepare(self, emulator: Emulator, configuration: Configuration, slack: Mapping[str, str]) -> Prepared:
        order = Order(
            store=StoreSettings(prefix=PREFIX, region=REGION, bucket=BUCKET, lock_days=1, digest_bucket=DIGEST_BUCKET),
            account=emulator.account,
            function_prefix=FUNCTION_PREFIX,
            secrets={**configuration.secrets, **self.targets.secrets(configuration.bundle), **slack},
            files={name: content.decode() for name, content in configuration.files.items()},
            credentials=tuple(
                principal.credential
                for target in configuration.bundle.targets.values()
                for principal in target.principals
                if principal.credential != CERTIFICATE and not principal.credential.startswith("arn:")
            ),
        )
        done = subprocess.run(
            [sys.executable, "-m", "dev.preparation"],
            input=order.text(),
            env=child_environment(emulator.environment(REGION)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PREPARED_WITHIN_S,
            check=False,
        )
        if done.returncode != 0:
            raise StoreUnavailable(f"the emulator could not be prepared:\n{done.stderr[-2000:]}")
        return read_prepared(done.stdout)

    def _start_functions(
        self, prepared: Prepared, emulator: Emulator, shared: Mapping[str, str], port: int
    ) -> tuple[Lambdas, dict[str, Function]]:
        functions: dict[str, Function] = {}
        for name in FUNCTIONS:
            arn = f"arn:aws:lambda:{REGION}:{emulator.account}:function:{FUNCTION_PREFIX}{name}"
            environment = child_environment({**shared, **_role(prepared, name).environment()})
            functions[name] = Function(
                name, arn, _starter(name, environment, self._log(name)), early=name not in SELDOM
            )
            self._ending.callback(functions[name].stop)
        callers = Callers(roles=tuple(prepared.roles.values()), clock=self._clock)
        lambdas = Lambdas({f"{FUNCTION_PREFIX}{name}": found for name, found in functions.items()}, callers, port=port)
        self._ending.callback(lambdas.stop)
        return lambdas, functions

    def _start_part(self, name: str, module: list[str], prepared: Prepared, shared: Mapping[str, str]) -> Child:
        environment = child_environment({**shared, **_role(prepared, name).environment()})
        child = Child(name, [sys.executable, "-m", *module], environment=environment, log=self._log(name), cwd=ROOT)
        self._ending.callback(child.stop)
        self._children.append(child)
        return child

    def _streams(self, prepared: Prepared, name: str, endpoint: str) -> Any:
        """Return the client with which AWS reads streams for the function of that name: under its role."""
        role = _role(prepared, name)
        session = Session(role.access_key, role.secret_key.expose(), region_name=REGION)
        return session.client("dynamodbstreams", endpoint_url=endpoint)

    def _start_pumps(self, emulator: Emulator, prepared: Prepared, functions: Mapping[str, Function]) -> None:
        at = emulator.endpoint
        cards, archive = self._streams(prepared, "post_cards", at), self._streams(prepared, "archive_items", at)
        posted, archived = functions["post_cards"].invoke, functions["archive_items"].invoke
        streams: list[Pump] = [StreamPump(cards, prepared.streams[name], REGION, posted) for name in (ASKS, ANSWERS)]
        streams += [
            Windowed(StreamPump(archive, arn, REGION, archived, batch=ARCHIVE_BATCH, until_taken=True), self._clock)
            for arn in prepared.streams.values()
        ]
        watch = functions["watch_targets"].invoke
        logs: list[Pump] = [
            LogPump(log.target, log.path, watch, self._clock, account=emulator.account, program=log.program)
            for log in self.targets.logs
        ]
        logs += self._own_logs(functions, emulator.account)
        self._watch_cloud = functions["watch_cloud"]
        self._reconcile, self._digest, self._sweep = (functions[name] for name in ("reconcile", "digest", "sweep"))
        self._retain = functions["retain"]
        pumps = Pumps([*streams, *logs], [self.reconcile, self.sweep])
        hourly = Pumps([], [self.digest, self.retain], every_s=3600.0)
        for each in (pumps, hourly):
            each.start()
            self._ending.callback(each.stop)

    def _own_logs(self, functions: Mapping[str, Function], account: str) -> list[Pump]:
        """Return what brings our own events to ``events``: the logs of all functions but its own, and the broker's."""
        found: list[Pump] = []
        for name in ("api", "broker", *(name for name in FUNCTIONS if name != "events")):
            log = self._log(name)
            log.touch()  # a function that nobody has called has no log yet
            group = BROKER_GROUP if name == "broker" else f"{FUNCTIONS_GROUP}{FUNCTION_PREFIX}"
            tell = functions["events"].invoke
            pump = LogPump(name, log, tell, self._clock, account=account, words=AUDITED, group=group)
            found.append(Windowed(pump, self._clock))
        return found

    def _end(self) -> None:
        self._ending.close()
        if self._options.state is not None and self.folder != Path():
            for name in _OF_NO_USE_AFTERWARDS:
                path = self.folder / name
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


# Data and keys.
_OF_NO_USE_AFTERWARDS: Final = ("emulator", "authority/broker.key", "authority/ssh_host_key", "auditor.env")


def _starter(name: str, environment: Mapping[str, str], log: Path) -> Callable[[], Child]:
    return lambda: start_host(name, environment=environment, log=log)


def _role(prepared: Prepared, name: str) -> Role:
    role = prepared.roles.get(name)
    if role is None:
        raise ConfigurationInvalid(f"there is no policy template for the role {name}")
    return role


def _broker_part(doors: Doors, identity: ServerIdentity) -> dict[str, Any]:
    known_hosts = identity.write_known_hosts(BROKER_HOST, doors.ssh)
    return {
        "postgres": {"host": BROKER_HOST, "port": doors.postgres, "ca_file": str(identity.authority)},
        "ssh": {"host": BROKER_HOST, "port": doors.ssh, "known_hosts_file": str(known_hosts)},
    }


def _keys_part(api_url: str) -> dict[str, Any]:
    return {"jwks": f"{api_url}/.well-known/jwks.json", "ssh": f"{api_url}/.well-known/ssh-target-ca.pub"}


def _slack_part(slack: SlackStandin, configuration: Configuration) -> dict[str, Json]:
    approvers = [person.slack_user for person in configuration.bundle.people if person.groups]
    return {
        "page": f"{slack.url}/",
        "messages": f"{slack.url}/messages",
        "click": f"{slack.url}/click",
        "approvers": approvers,
    }


def _aws_part(emulator: Emulator, prepared: Prepared, api_url: str) -> dict[str, Any]:
    auditor = {
        **_role(prepared, "auditor").environment(),
        "AWS_ENDPOINT_URL": emulator.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "COUNTERSIGN_API": api_url,  # it is told of what is replayed
        "COUNTERSIGN_PREFIX": PREFIX,
        "COUNTERSIGN_BUCKET": BUCKET,
        "COUNTERSIGN_DIGEST_BUCKET": DIGEST_BUCKET,
    }
    place = {"endpoint": emulator.endpoint, "region": REGION, "bucket": BUCKET, "prefix": PREFIX}
    return {**place, "auditor": auditor}


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own API
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
