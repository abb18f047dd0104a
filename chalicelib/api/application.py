"""The Chalice application: its blueprints and middleware, over a plane that is made when it is first needed."""

from __future__ import annotations

from collections.abc import Callable

from aws_lambda_powertools import Logger
from chalice.app import Chalice, ConvertToMiddleware

from chalicelib.api.approvals import approvals_blueprint
from chalicelib.api.chains import chains_blueprint
from chalicelib.api.copies import copies_blueprint
from chalicelib.api.edge import Edge, Plane
from chalicelib.api.holds import holds_blueprint
from chalicelib.api.openapi import openapi_blueprint
from chalicelib.api.public import public_blueprint
from chalicelib.api.replays import replays_blueprint
from chalicelib.api.sessions import sessions_blueprint
from chalicelib.api.signoffs import signoffs_blueprint
from chalicelib.api.slack_events import slack_blueprint
from chalicelib.api.token import token_blueprint

APP_NAME = "countersign"
_BLUEPRINTS = (
    token_blueprint,
    sessions_blueprint,
    chains_blueprint,
    signoffs_blueprint,
    holds_blueprint,
    copies_blueprint,
    replays_blueprint,
    slack_blueprint,
    approvals_blueprint,
    public_blueprint,
    openapi_blueprint,
)


def application(plane: Callable[[], Plane], logger: Logger) -> Chalice:
    """Return the app with every route. ``plane`` is called with each request: give one that keeps what it made."""
    app = Chalice(app_name=APP_NAME, configure_logs=False)
    edge = Edge(plane, logger)
    for blueprint in _BLUEPRINTS:
        app.register_blueprint(blueprint(edge))
    # Keys of one invocation must not stay on the next one's lines: a warm Lambda keeps its logger.
    app.register_middleware(ConvertToMiddleware(logger.inject_lambda_context(clear_state=True)))
    return app
