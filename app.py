"""The composition root of the Lambdas: settings, stores, services, and one function for each role. No logic.

Importing it reads no setting and opens no store, so that the Chalice command line can; each function makes what its own
role may use, at its first call, and keeps it. The streams of asks and answers are mapped to ``post_cards``, those of
all tables to ``archive_items``, the targets' logs to ``watch_targets`` and our own to ``events``, and the rules of
``infra/events`` to ``watch_cloud``, by the infrastructure and not by a decorator: Chalice would need their ARNs at
import, and offers neither filter nor failure destination.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from aws_lambda_powertools import Logger
from chalice.app import CloudWatchEvent, Cron, Rate

from chalicelib.api.application import application
from chalicelib.api.audit_log import LogAudit, log_refusal
from chalicelib.api.edge import Broker, Plane, SlackEdge
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.secret import Secret
from chalicelib.domain.store import RunningCode
from chalicelib.services.archive_items import stream_changes
from chalicelib.services.assembly import (
    Parts,
    api_services,
    archive_service,
    cards_service,
    decide_service,
    digest_service,
    hold_service,
    mint_service,
    open_token_service,
    retain_service,
    review_service,
    sign_off_service,
    sign_services,
    sweep_service,
    vouch_copy_service,
)
from chalicelib.services.event_lines import EventLines
from chalicelib.services.functions import (
    Handler,
    answered,
    decide_handler,
    hold_handler,
    mint_handler,
    open_token_handler,
    review_handler,
    sign_handler,
    sign_off_handler,
    stream_records,
    vouch_copy_handler,
)
from chalicelib.services.grant import listening
from chalicelib.services.post_cards import PostCards
from chalicelib.services.retain import Retain
from chalicelib.services.target_log import TargetLog, log_events
from chalicelib.services.watch_cloud import WatchCloud
from chalicelib.settings import Settings, SystemClock, read_settings

logger = Logger(service="countersign")

SWEEP_MINUTES = 2  # a broker is silent for two before its connections are sealed: they take places for four at most
RETAIN_MINUTE = 42  # of every hour; its own time, so that the two that read much do not meet
DIGEST_MINUTE = 12  # of every hour: the one before has settled (``domain.digest.SETTLED``)


@lru_cache(1)
def settings() -> Settings:
    return read_settings()


@lru_cache(1)
def parts() -> Parts:
    from chalicelib.services.active_bundle import active_bundle
    from chalicelib.store.opened import open_stores

    clock = SystemClock()
    stores = open_stores(settings().store, function_prefix=settings().function_prefix, clock=clock)
    return Parts(
        stores=stores,
        bundles=active_bundle(stores, clock),
        clock=clock,
        audit=LogAudit(logger),
        public_url=settings().public_url,
        audience=settings().broker_audience,
        approval_url=settings().approval_url,
    )


def secret(reference: str) -> Callable[[], Secret]:
    return lambda: parts().stores.secrets.get(reference)


@lru_cache(1)
def slack_edge() -> SlackEdge:
    from chalicelib.slack.clicks import Clicks
    from chalicelib.slack.signature import SlackSignature

    verify = SlackSignature(secret(settings().slack_signing_secret), parts().clock)
    return Clicks(verify=verify, functions=parts().stores.functions)


@lru_cache(1)
def plane() -> Plane:
    told = settings()
    return Plane(
        services=api_services(
            parts(), waiters=told.waiters, pause=time.sleep, served=listening(ssh=bool(told.broker_ssh_port))
        ),
        slack=slack_edge,
        broker=Broker(
            host=told.broker_host,
            postgres_port=told.broker_postgres_port,
            ca_pem=told.broker_ca_pem,
            ssh_port=told.broker_ssh_port,
            ssh_host_key=told.broker_ssh_host_key,
        ),
        clock=parts().clock,
    )


@lru_cache(1)
def sign_work() -> Handler:
    from chalicelib.identity.jwks import fetch_jwks

    return sign_handler(sign_services(parts(), fetch_jwks))


@lru_cache(1)
def decide_work() -> Handler:
    from chalicelib.slack.signature import SlackSignature

    return decide_handler(
        decide_service(parts(), SlackSignature(secret(settings().slack_signing_secret), parts().clock))
    )


@lru_cache(1)
def mint_work() -> Handler:
    return mint_handler(mint_service(parts()))


@lru_cache(1)
def review_work() -> Handler:
    return review_handler(parts().identify(), review_service(parts()))


@lru_cache(1)
def sign_off_work() -> Handler:
    return sign_off_handler(parts().identify(), sign_off_service(parts()))


@lru_cache(1)
def open_token_work() -> Handler:
    return open_token_handler(parts().identify(), open_token_service(parts()))


@lru_cache(1)
def vouch_copy_work() -> Handler:
    return vouch_copy_handler(parts().identify(), vouch_copy_service(parts()))


@lru_cache(1)
def hold_work() -> Handler:
    return hold_handler(parts().identify(), hold_service(parts()))


@lru_cache(1)
def retain_work() -> Retain:
    return retain_service(parts())


@lru_cache(1)
def cards() -> PostCards:
    from chalicelib.slack.poster import SlackPoster

    told = settings()
    poster = SlackPoster(api_url=told.slack_api_url, token=secret(told.slack_bot_token), channel=told.slack_channel)
    return cards_service(parts(), poster)


@lru_cache(1)
def event_lines() -> EventLines:
    from chalicelib.store.bus import open_bus

    told = settings()
    bus = open_bus(told.event_bus, told.store.region, parts().clock) if told.event_bus else None
    return EventLines(parts().stores.objects, parts().clock, bus=bus, source=told.public_url)


@lru_cache(1)
def running_code() -> RunningCode:
    from chalicelib.store.deployed import open_running_code

    told, prefix = settings(), settings().function_prefix
    ours: list[Any] = [*app.pure_lambda_functions, *app.event_sources]  # those on a schedule are the latter
    named = {function.name: f"{prefix}{function.name}" for function in ours}
    functions = {**named, "api": prefix.rstrip("-")}  # Chalice gives the API's function the stage's own name
    return open_running_code(functions, told.broker_cluster, told.store.region, parts().clock)


@lru_cache(1)
def cloud_watch() -> WatchCloud:
    return WatchCloud(LogAudit(logger), SystemClock())


app = application(plane, logger)


def failed() -> None:
    logger.exception("unhandled")


@app.lambda_function(name="sign")
def sign(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: sign_work()(given), event, failed)


@app.lambda_function(name="decide")
def decide(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: decide_work()(given), event, failed)


@app.lambda_function(name="mint")
def mint(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: mint_work()(given), event, failed)


@app.lambda_function(name="review")
def review(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: review_work()(given), event, failed)


@app.lambda_function(name="sign_off")
def sign_off(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: sign_off_work()(given), event, failed)


@app.lambda_function(name="open_token")
def open_token(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: open_token_work()(given), event, failed)


@app.lambda_function(name="vouch_copy")
def vouch_copy(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: vouch_copy_work()(given), event, failed)


@app.lambda_function(name="hold")
def hold(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return answered(lambda given: hold_work()(given), event, failed)


@app.lambda_function(name="post_cards")
def post_cards(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return {"failed": cards()(stream_records(event))}


@app.lambda_function(name="watch_targets")
def watch_targets(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return {"refused": TargetLog(LogAudit(logger), SystemClock())(*log_events(event))}


@app.lambda_function(name="watch_cloud")
def watch_cloud(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    try:
        return {"told": cloud_watch()(event), "refused": 0}
    except BadRequest as error:
        log_refusal(logger, error, str(event.get("id", ""))[:64])
        return {"told": 0, "refused": 1}


@app.lambda_function(name="events")
def events(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    told, refused = event_lines()(*log_events(event))
    if refused:
        logger.warning("refused", extra={"code": "bad_request", "lines": refused})
    return {"events": told, "refused": refused}


@app.lambda_function(name="archive_items")
def archive_items(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    changes = stream_changes(event, settings().store.prefix)
    return {"archived": archive_service(parts())(changes)}


@app.schedule(Cron(DIGEST_MINUTE, "*", "*", "*", "?", "*"), name="digest")
def digest(_event: CloudWatchEvent) -> Mapping[str, Json]:
    return {"made": digest_service(parts(), running_code())()}


@app.schedule(Rate(SWEEP_MINUTES, unit=Rate.MINUTES), name="sweep")
def sweep(_event: CloudWatchEvent) -> Mapping[str, Json]:
    told = sweep_service(parts())().told()
    logger.info("swept", extra=told)  # a line each run, whatever it found: its absence is an alarm too
    return told


@app.schedule(Cron(RETAIN_MINUTE, "*", "*", "*", "?", "*"), name="retain")
def retain(_event: CloudWatchEvent) -> Mapping[str, Json]:
    return retain_work()().told()


@app.schedule(Rate(1, unit=Rate.MINUTES), name="reconcile")
def reconcile(_event: CloudWatchEvent) -> Mapping[str, Json]:
    return {"failed": cards().reconcile()}
