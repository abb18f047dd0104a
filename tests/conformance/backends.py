"""Where the battery runs: memory, ministack and moto, each behind the same few words.

The emulators' addresses go into the environment of a test while it runs and no longer (botocore reads them when a
client is made), so that nothing that runs beside it in the same process talks to one by accident.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote

from boto3.session import Session

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import AccessError, refusal
from chalicelib.domain.store import Stores
from chalicelib.settings import StoreSettings
from chalicelib.store.opened import open_stores
from dev.emulator import Emulator
from dev.loopback import LoopbackServer, Request, Response, as_json
from dev.provision import provision
from tests.fakes.memory import MemoryStores

REGION: Final = "eu-west-1"
LOCK_DAYS: Final = 1
Function: TypeAlias = Callable[[Mapping[str, Json]], Mapping[str, Json]]


class Backend(Protocol):
    """One place to keep state, and the means to prepare it that no product code has."""

    name: str

    def environment(self) -> Mapping[str, str]: ...
    def empty(self) -> Stores:
        """Return stores with nothing in them."""
        ...

    def put_secret(self, stores: Stores, name: str, value: str) -> None: ...
    def put_function(self, stores: Stores, name: str, function: Function) -> None: ...
    def stop(self) -> None: ...


class MemoryBackend:
    name = "memory"

    def environment(self) -> Mapping[str, str]:
        return {}

    def empty(self) -> Stores:
        return MemoryStores()

    def put_secret(self, stores: Stores, name: str, value: str) -> None:
        assert isinstance(stores, MemoryStores)
        stores.secrets.rows[name] = value

    def put_function(self, stores: Stores, name: str, function: Function) -> None:
        assert isinstance(stores, MemoryStores)
        stores.functions.register(name, function)

    def stop(self) -> None:
        """Nothing was started."""


class EmulatorBackend:
    """An emulator, with a Lambda API of our own beside it: emulators run functions in containers or not at all."""

    def __init__(self, emulator: Emulator) -> None:
        self.name = emulator.name
        self._emulator = emulator
        self._lambda = LambdaApi()

    def environment(self) -> Mapping[str, str]:
        return {**self._emulator.environment(REGION), "AWS_ENDPOINT_URL_LAMBDA": self._lambda.url}

    def empty(self) -> Stores:
        settings = new_settings()
        provision(settings)
        return open_stores(settings, function_prefix="countersign-")

    def put_secret(self, stores: Stores, name: str, value: str) -> None:
        Session().client("secretsmanager", region_name=REGION).create_secret(Name=name, SecretString=value)

    def put_function(self, stores: Stores, name: str, function: Function) -> None:
        self._lambda.functions[f"countersign-{name}"] = function

    def stop(self) -> None:
        self._lambda.stop()
        self._emulator.stop()


def new_settings(lock_days: int = LOCK_DAYS) -> StoreSettings:
    """Return settings that name a deployment that nobody else has."""
    name = f"t{secrets.token_hex(4)}"
    return StoreSettings(prefix=name, region=REGION, bucket=f"{name}-bucket", lock_days=lock_days)


@dataclass
class LambdaApi:
    """The one call of the Lambda API that the product makes, with Python callables behind it."""

    functions: dict[str, Function] = field(default_factory=dict)
    _server: Any = None

    def __post_init__(self) -> None:
        self._server = LoopbackServer("lambda", self._answer)
        self._server.start()

    @property
    def url(self) -> str:
        return str(self._server.url)

    def stop(self) -> None:
        self._server.stop()

    def _answer(self, request: Request) -> Response:
        name = unquote(request.path.split("/")[3])
        function = self.functions.get(name)
        if function is None:
            return Response(
                status=404,
                body=json.dumps({"Type": "User", "Message": "no such function"}).encode(),
                headers={"X-Amzn-ErrorType": "ResourceNotFoundException"},
            )
        try:
            return as_json({"ok": function(json.loads(request.body))})
        except AccessError as error:
            return as_json({"refused": refusal(error)})
        except Exception:  # noqa: BLE001 - as Lambda does with whatever a function raises
            return Response(
                body=json.dumps({"errorMessage": "boom", "errorType": "Exception"}).encode(),
                headers={"X-Amz-Function-Error": "Unhandled"},
            )
