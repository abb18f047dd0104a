"""``/v1/replays``: say that a recording is about to be shown to the caller. Nothing of it passes through here."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint
from chalicelib.api.models import ReplayAnswer, ReplayBody
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import NotFound
from chalicelib.services.replays import ReplayWanted

TELL_REPLAY = Endpoint(
    method="POST",
    path="/v1/replays",
    name="tell_replay",
    tag="chains",
    summary="Tell that a session's recording is replayed, before it is",
    description="Needs a rule that permits chain:review (context.what is replay). It becomes the event "
    "recording.replayed; the command line shows nothing without it. It hands out nothing.",
    body=ReplayBody,
    answers={201: ReplayAnswer},
    refusals=(NotFound,),
)


def replays_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, TELL_REPLAY, _tell)
    return bp


def _tell(plane: Plane, call: Call) -> Answered:
    body = call.body(ReplayBody)
    wanted = ReplayWanted(
        session_id=body.session_id, connection_id=body.connection_id, form=body.form, begin=body.begin
    )
    told_at = plane.services.replays(call.caller, wanted)
    return Answered(status=201, body=ReplayAnswer(session_id=body.session_id, told_at=timestamp(told_at)))
