"""Whether a deployment does its work: its configuration, the issuers in it, functions, Slack, sealing, digests, keys.

The rights: the auditor's (``infra/policies/auditor.json``), ``lambda:GetFunctionConfiguration``,
``logs:FilterLogEvents`` and, for Slack alone, ``secretsmanager:GetSecretValue`` of the bot token, which is used for one
call and never shown. Of the functions' logs it tells how many lines are errors and when, never what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from chalicelib.config.bundle import Bundle
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import SILENT_AFTER
from chalicelib.domain.errors import ConfigurationInvalid, NotFound, ProofInvalid, StoreUnavailable
from chalicelib.domain.issuer import Issuer
from chalicelib.domain.key_history import PURPOSES
from chalicelib.identity.jwks import fetch_jwks
from chalicelib.services.active_bundle import active_bundle
from chalicelib.services.digest_chain import last_due_hour, read_chain
from chalicelib.services.key_history import HistoryKeys, read_history, unintroduced_keys
from chalicelib.store.opened import Stores
from countersign.doctor.asking import ask
from countersign.doctor.checks import Check, Status, Told, grouped, ok, unknown, warn, wrong
from countersign.doctor.deployment import looking
from countersign.doctor.service import discovered
from countersign.printable import counted, moment, safe_line

# The folder .chalice/policies has a policy for each of them; ``api`` is Chalice's own, named as the stage.
FUNCTIONS: Final = (
    *("api", "archive_items", "decide", "digest", "events", "hold", "mint", "open_token", "post_cards", "reconcile"),
    *("retain", "review", "sign", "sign_off", "sweep", "vouch_copy", "watch_cloud", "watch_targets"),
)
SCOPES: Final = frozenset({"chat:write"})  # integrations/slack/manifest.json: cards are posted and changed
_SLACK: Final = "https://slack.com/api/"
_ERRORS_OF: Final = timedelta(hours=1)
_MOST_LINES: Final = 100  # of each: past that nobody needs the number
# Our logger's level and Lambda's own mark of an exception; and what Lambda says where it ended the function.
_FAILED: Final = ("ERROR", '"Task timed out"')
# The sweeper runs every two minutes and takes a broker for dead after two: after ten it does not run, or cannot seal.
_UNSEALED_FOR: Final = SILENT_AFTER + timedelta(minutes=8)
_DIGESTS: Final = timedelta(hours=3)  # a day's would be 24 reads; what is older is `countersign verify --all`'s to find


class WorkChecks:
    """The checks of what runs. ``told`` are the environment's variables; ``prefix`` begins every function's name."""

    def __init__(self, stores: Stores, told: Mapping[str, str], clock: Clock, *, prefix: str) -> None:
        self._stores = stores
        self._told = told
        self._clock = clock
        self._prefix = told.get("COUNTERSIGN_FUNCTION_PREFIX", f"{prefix}-")

    def checks(self) -> list[Check]:
        return [
            Check(name="configuration", look=self._configuration),
            Check(name="issuers", look=self._issuers),
            Check(name="functions", look=self._functions),
            Check(name="slack", look=self._slack),
            Check(name="unsealed connections", look=self._unsealed),
            Check(name="hourly digests", look=self._digests),
            Check(name="key history", look=self._history),
        ]

    def bundle(self) -> Bundle:
        """Return the active configuration. Raises ConfigurationInvalid, StoreUnavailable."""
        return active_bundle(self._stores, self._clock).for_new_sessions()

    def _configuration(self) -> Iterator[Told]:
        try:
            latest = self._stores.activations.latest()
            bundle = self.bundle()
        except NotFound:
            yield wrong("no configuration was ever activated", "`make deploy` pushes the first one.")
            return
        except ConfigurationInvalid as error:
            why = safe_line(str(error.detail.get("why", error.public)), 300)
            fix = "Push a bundle that `countersign config check` takes: no session begins before."
            yield wrong(f"configuration {latest.serial} cannot be used: {why}", fix)
            return
        when = f"{moment(timestamp(latest.activated_at))} by {safe_line(latest.author, 64)}"
        yield ok(f"configuration {bundle.serial} of {when}, digest {bundle.digest[:12]}")

    def _issuers(self) -> Iterator[Told]:
        for issuer in self.bundle().issuers:
            keys = self._issuers_keys(issuer)
            if keys is not None:
                yield keys
                continue
            # Tokens are verified by the pinned keys, which are there: a cluster may keep its discovery to itself.
            told = discovered(issuer.url, issuer.name)
            yield replace(told, status=Status.WARN) if told.status is Status.WRONG else told

    def _issuers_keys(self, issuer: Issuer) -> Told | None:
        try:
            listed = fetch_jwks(issuer.jwks_uri).get("keys")
        except (StoreUnavailable, ConfigurationInvalid):
            listed = None
        if isinstance(listed, list) and any(isinstance(key, dict) and key.get("kid") for key in listed):
            return None
        return wrong(f"issuer {issuer.name} shows no keys at its jwks_uri", "Nobody can begin a chain there meanwhile.")

    def _functions(self) -> Iterator[Told]:
        faults = grouped(((name, told) for name in FUNCTIONS for told in self._function(name)), "function")
        yield from faults
        if not faults:
            yield ok(f"{counted(len(FUNCTIONS), 'function')}, without an error in the last hour")

    def _function(self, name: str) -> Iterator[Told]:
        full = self._prefix.rstrip("-") if name == "api" else f"{self._prefix}{name}"
        try:
            with looking("lambda", f"the function {name}"):
                told = self._stores.clients.functions().get_function_configuration(FunctionName=full)
        except NotFound:
            yield wrong("not there", "`chalice deploy --stage STAGE`.")
            return
        if "Failed" in {told.get("State"), told.get("LastUpdateStatus")}:
            yield wrong(f"it cannot run ({told.get('StateReasonCode', '?')})", "Deploy it again.")
        since = self._clock.now() - _ERRORS_OF
        at = [when for pattern in _FAILED for when in self._logged(full, pattern, since)]
        if at:
            last = moment(timestamp(datetime.fromtimestamp(max(at) / 1000, since.tzinfo)))
            what = f"logged {counted(len(at), 'error')} in the last hour, the last at {last}"
            yield warn(what, f"`aws logs tail /aws/lambda/{full} --since 1h --filter-pattern ERROR`")

    def _logged(self, function: str, pattern: str, since: datetime) -> list[int]:
        """Return when lines with ``pattern`` were logged, in milliseconds; none of what they say."""
        try:
            with looking("logs", f"the log of {function}"):
                lines = self._stores.clients.logs().filter_log_events(
                    logGroupName=f"/aws/lambda/{function}",
                    startTime=int(since.timestamp() * 1000),
                    filterPattern=pattern,
                    limit=_MOST_LINES,
                )["events"]
        except NotFound:  # nobody has called it yet, so Lambda has made no log
            return []
        return [int(line["timestamp"]) for line in lines]

    def _slack(self) -> Iterator[Told]:
        reference = self._told.get("COUNTERSIGN_SLACK_BOT_TOKEN", "")
        if not reference:
            yield unknown("nobody said where the bot token is", "Set COUNTERSIGN_SLACK_BOT_TOKEN to its secret's name.")
            return
        token = self._stores.secrets.get(reference)
        at = self._told.get("COUNTERSIGN_SLACK_API_URL", _SLACK).rstrip("/")
        try:
            answer = ask(f"{at}/auth.test", headers={"Authorization": f"Bearer {token.expose()}"}, body=b"")
        except OSError as error:
            yield wrong(f"Slack cannot be reached: {error.strerror or type(error).__name__}", "status.slack.com?")
            return
        told = answer.json_object()
        if told.get("ok") is not True:
            code = safe_line(str(told.get("error", answer.status)), 64)
            yield wrong(
                f"Slack does not take the bot token ({code})", "Install the app again; put the token into its secret."
            )
            return
        has = {scope.strip() for scope in answer.headers.get("x-oauth-scopes", "").split(",") if scope.strip()}
        missing, more = sorted(SCOPES - has), sorted(has - SCOPES)
        if missing:
            yield wrong(
                f"the Slack app lacks {', '.join(missing)}", "integrations/slack/manifest.json; install it again."
            )
        if more:
            names = safe_line(", ".join(more), 200)
            yield warn(
                f"the Slack app may more than it needs: {names}", "integrations/slack/manifest.json has all of it."
            )
        if not missing and not more:
            yield ok(f"Slack takes the bot token, with {', '.join(sorted(SCOPES))}")

    def _unsealed(self) -> Iterator[Told]:
        now = self._clock.now()
        rows = self._stores.connections.unsealed()
        silent: dict[str, bool] = {}
        for boot in {row.boot for row in rows}:
            beat = self._stores.beats.last(boot)
            silent[boot] = beat is None or now - beat.at > _UNSEALED_FOR
        dead = [row for row in rows if silent[row.boot] and now - row.opened_at > _UNSEALED_FOR]
        if dead:
            oldest = moment(timestamp(min(row.opened_at for row in dead)))
            what = f"{counted(len(dead), 'connection')} of dead brokers are not sealed, the oldest of {oldest}"
            yield wrong(what, "docs/runbooks/recording-stuck.md: read the log of the function sweep.")
        else:
            yield ok(f"{counted(len(rows), 'connection')} open, all of brokers that live")

    def _digests(self) -> Iterator[Told]:
        now = self._clock.now()
        history = read_history(self._stores.objects)
        keys = HistoryKeys(self._stores.keys, history)
        due = last_due_hour(now)
        chain = read_chain(self._stores.objects, self._stores.digest_copies, keys, since=due - _DIGESTS, now=now)
        if not chain.digests and not chain.findings:
            yield self._no_digest(now)
            return
        for finding in chain.findings:
            what = f"{safe_line(finding.key, 120)} {safe_line(finding.what, 200)}"
            yield wrong(what, "Read the log of the function digest; then `countersign verify --all`.")
        if not chain.findings:
            last = max(chain.digests)
            yield ok(f"the last one is of {moment(timestamp(last))}, signed, naming the one before")

    def _no_digest(self, now: datetime) -> Told:
        try:
            began = self._stores.activations.latest().activated_at
        except NotFound:
            began = now
        if last_due_hour(now) <= began:
            return ok("there is none yet: the deployment is younger than the first one due")
        return wrong("there is none of the last hours: nothing commits to what was archived", "Read the log of digest.")

    def _history(self) -> Iterator[Told]:
        history = read_history(self._stores.objects)
        found = [*history.findings]
        try:
            found += unintroduced_keys(self._stores.keys, history)
        except ProofInvalid as error:
            yield wrong(error.public, "docs/runbooks/change-a-key.md")
        for finding in found:
            yield wrong(
                f"{safe_line(finding.key, 120)} {safe_line(finding.what, 200)}", "docs/runbooks/change-a-key.md"
            )
        without = [purpose.value for purpose in PURPOSES if not history.of(purpose.value)]
        if without:
            what = f"no history of {', '.join(without)}: auditors' fingerprints end with the key of now"
            yield warn(what, "`countersign keys begin --by NAME`, once.")
        elif not found:
            yield ok("each key that signs was introduced by the one before")


def targets_of(work: WorkChecks, told: Mapping[str, str]) -> list[Check]:
    """Return a check for each target of the active configuration, for whoever asked for them. Raises
    ConfigurationInvalid, StoreUnavailable, NotFound."""
    from countersign.doctor.targets import look_at

    return [
        Check(name=f"target {name}", look=partial(look_at, target, told))
        for name, target in sorted(work.bundle().targets.items())
    ]
