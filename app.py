"""The composition root of the Lambdas: settings, stores, services, and one function for each role. No logic.

Importing it reads no setting and opens no store, so that the Chalice command line can; each function makes what its own
role may use, at its first call, and keeps it. The streams of asks and answers are mapped to ``post_cards``, those of
all tables to ``archive_items``, the targets' logs to ``watch_targets`` and our own to ``events``, by the infrastructure
and not by a decorator: Chalice would need their ARNs at import, and offers neither filter nor failure destination.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from aws_lambda_powertools import Logger
from chalice.app import CloudWatchEvent, Cron, Rate

from chalicelib.api.application import application
from chalicelib.api.audit_log import LogAudit
from chalicelib.api.edge import Broker, Plane, SlackEdge
from chalicelib.domain.canonical import Json
from chalicelib.domain.secret import Secret
from chalicelib.services.archive_items import stream_changes
from chalicelib.services.assembly import (
    Parts,
    api_services,
    archive_service,
    cards_service,
    decide_service,
    digest_service,
    mint_service,
    review_service,
    sign_off_service,
    sign_services,
    sweep_service,
)
from chalicelib.services.event_lines import EventLines
from chalicelib.services.functions import (
    Handler,
    answered,
    decide_handler,
    mint_handler,
    review_handler,
    sign_handler,
    sign_off_handler,
    stream_records,
)
from chalicelib.services.grant import listening
from chalicelib.services.post_cards import PostCards
from chalicelib.services.target_log import TargetLog, log_events
from chalicelib.settings import Settings, SystemClock, read_settings

logger = Logger(service="countersign")

SWEEP_MINUTES = 2  # a broker is silent for two before its connections are sealed: they take places for four at most
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


@app.lambda_function(name="post_cards")
def post_cards(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return {"failed": cards()(stream_records(event))}


@app.lambda_function(name="watch_targets")
def watch_targets(event: Mapping[str, Json], _context: Any) -> Mapping[str, Json]:
    return {"refused": TargetLog(LogAudit(logger), SystemClock())(*log_events(event))}


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
    return {"made": digest_service(parts())()}


@app.schedule(Rate(SWEEP_MINUTES, unit=Rate.MINUTES), name="sweep")
def sweep(_event: CloudWatchEvent) -> Mapping[str, Json]:
    return sweep_service(parts())().told()


@app.schedule(Rate(1, unit=Rate.MINUTES), name="reconcile")
def reconcile(_event: CloudWatchEvent) -> Mapping[str, Json]:
    return {"failed": cards().reconcile()}
