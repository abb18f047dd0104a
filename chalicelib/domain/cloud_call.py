"""CloudCall: one call of an AWS API, as CloudTrail records it: in its log files, and in the events that EventBridge
delivers.

Rules: AWS wrote the record's frame (id, time, service, operation, who, from where), and *the caller* wrote what stands
in the request: names of resources, in whatever form the API takes them. So nothing in a request has a type until it was
looked at; what is not text reads as nothing. A member that AWS always writes and that is not there makes it no
record; one that it may leave out (a refused call has no request, a service has no ARN) does not. Pure.
Source: docs.aws.amazon.com, CloudTrail user guide, "CloudTrail record contents" (1.11), "userIdentity element",
"CloudTrail log file examples"; KMS developer guide, "Sign"; Lambda's names end in their API's version
(``UpdateFunctionCode20150331v2``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from chalicelib.domain.errors import BadRequest

MAX_TEXT: Final = 1024  # characters of any text: an S3 key has as many bytes, an ARN fewer
_MAJOR: Final = re.compile(r"1\.\d{1,3}\Z")
_SERVICE: Final = re.compile(r"([a-z0-9-]{1,63})\.amazonaws\.com\Z")
_OPERATION: Final = re.compile(r"[A-Za-z0-9_:]{1,128}\Z")
_API_VERSION: Final = re.compile(r"20\d{6}(v\d)?\Z")
_ID: Final = re.compile(r"[0-9A-Za-z-]{8,64}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudCall:
    """``service`` is ``s3``, ``kms`` and so on; ``operation`` the API's name without its version. ``who`` is the
    caller's ARN, or what AWS says instead; ``source_identity`` what was set when its role was assumed. ``code`` is the
    error, empty where it worked. ``request`` and ``response`` are as the record has them: see :meth:`text`.
    ``resources`` are the ARNs that AWS resolved."""

    id: str
    at: datetime
    service: str
    operation: str
    who: str
    source_identity: str
    peer: str
    region: str
    code: str
    read_only: bool
    resources: tuple[str, ...]
    request: Mapping[str, Any]
    response: Mapping[str, Any]

    def text(self, *path: str) -> str:
        """Return the text at ``path`` of the request, cut to a bound; empty where there is none. Pure."""
        return _text(self.request, path)

    def answered(self, *path: str) -> str:
        """Return the text at ``path`` of the response, as :meth:`text` does. Pure."""
        return _text(self.response, path)

    def flag(self, *path: str) -> bool | None:
        """Return the truth value at ``path`` of the request, None where there is none. Pure."""
        found = _at(self.request, path)
        return found if isinstance(found, bool) else None


def cloud_call(record: object) -> CloudCall:
    """Return the call that a CloudTrail record tells of.

    Raises BadRequest where it is no record, of another major version, or lacks what AWS always writes. Pure.
    """
    match record:
        case {
            "eventVersion": str(version),
            "eventID": str(event_id),
            "eventTime": str(time),
            "eventSource": str(source),
            "eventName": str(name),
            "userIdentity": Mapping() as identity,
            **rest,
        }:
            pass
        case _:
            raise BadRequest("this is no record of CloudTrail")
    service = _SERVICE.match(source)
    if service is None or not (_MAJOR.match(version) and _ID.match(event_id) and _OPERATION.match(name)):
        raise BadRequest("a record of CloudTrail is not of the form that AWS documents")
    return CloudCall(
        id=event_id,
        at=_moment(time),
        service=service[1],
        operation=_API_VERSION.sub("", name),
        who=_who(identity),
        source_identity=_text(identity, ("sessionContext", "sourceIdentity")),
        peer=_text(rest, ("sourceIPAddress",)),
        region=_text(rest, ("awsRegion",)),
        code=_text(rest, ("errorCode",)),
        read_only=rest.get("readOnly") is True,
        resources=_resources(rest.get("resources")),
        request=_object(rest.get("requestParameters")),
        response=_object(rest.get("responseElements")),
    )


def _who(identity: Mapping[str, Any]) -> str:
    """Return the caller's ARN; where AWS gives none (a service, another account's principal), its kind and name."""
    arn = _text(identity, ("arn",))
    if arn:
        return arn
    kind = _text(identity, ("type",)) or "unknown"
    for name in ("invokedBy", "principalId", "accountId", "userName"):
        if found := _text(identity, (name,)):
            return f"{kind}:{found}"
    return kind


def _resources(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    found = (_text(one, ("ARN",)) or _text(one, ("ARNPrefix",)) for one in value if isinstance(one, Mapping))
    return tuple(arn for arn in found if arn)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _at(value: object, path: Sequence[str]) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: object, path: Sequence[str]) -> str:
    found = _at(value, path)
    return found[:MAX_TEXT] if isinstance(found, str) else ""


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:  # the latter: a year 1 that another zone puts before all time
        raise BadRequest("a record of CloudTrail has no time") from error
