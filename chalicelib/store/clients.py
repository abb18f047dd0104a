"""The clients of AWS: made on first use, once each, with bounds. Endpoints and credentials are botocore's business."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.store.dates import ServiceDates
from chalicelib.store.tables import CONNECT_TIMEOUT_S, POOL, READ_TIMEOUT_S, RETRIES

# A function may start cold (measured: 1 to 2 s) and reads tables itself. It is never called twice for one call of ours:
# a second run meets what the first one wrote, and would answer "taken" for a success.
FUNCTION_READ_TIMEOUT_S: Final = 15

# A segment is 256 KiB and more, over a link that others share, and S3 itself takes tens of milliseconds for a put.
OBJECT_READ_TIMEOUT_S: Final = 5


class Clients:
    """Makes each client once, thread-safely. A Lambda pays only for those that it uses: the first one costs 80 ms and
    more, each further one about 10."""

    def __init__(self, region: str, dates: ServiceDates) -> None:
        self._region = region
        self._dates = dates
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}
        self._session: Session | None = None

    def objects(self) -> Any:
        """S3, without retries of its own: ``objects`` repeats a put itself, since only it can tell a repeat's 412 from
        another writer's."""
        return self._client("s3", read_s=OBJECT_READ_TIMEOUT_S, attempts=1)

    def keys(self) -> Any:
        return self._client("kms")

    def tables(self) -> Any:
        """DynamoDB without the shapes of our rows, for whoever compares rows as they are."""
        return self._client("dynamodb")

    def functions(self) -> Any:
        return self._client("lambda", read_s=FUNCTION_READ_TIMEOUT_S, attempts=1)

    def events(self) -> Any:
        return self._client("events")

    def tasks(self) -> Any:
        return self._client("ecs")

    def logs(self) -> Any:
        return self._client("logs")

    def secrets(self) -> Any:
        return self._client("secretsmanager")

    def _client(self, service: str, *, read_s: int = READ_TIMEOUT_S, attempts: int = 1 + RETRIES) -> Any:
        with self._lock:
            if service not in self._made:
                self._session = self._session or Session(region_name=self._region)
                client = self._session.client(
                    service,
                    config=Config(
                        connect_timeout=CONNECT_TIMEOUT_S,
                        read_timeout=read_s,
                        max_pool_connections=POOL,
                        retries={"total_max_attempts": attempts, "mode": "standard"},
                    ),
                )
                self._dates.watch(client)
                self._made[service] = client
            return self._made[service]


@contextmanager
def calling(what: str, on: Callable[[str], Exception | None] = lambda _code: None) -> Iterator[None]:
    """Turn what a client raises into the error that ``on`` has for its code, else into StoreUnavailable. The detail
    names the service and the code, and nothing of what was sent."""
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        known = on(code)
        if known is not None:
            raise known from None
        raise StoreUnavailable("a service could not be reached", service=what, error=code) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise StoreUnavailable("a service could not be reached", service=what, error=type(error).__name__) from error


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
