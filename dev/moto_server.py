"""moto's server with one lock over DynamoDB. Runs in the emulators' own environment, as a script: it imports nothing
of ours, and nothing of ours imports it.

Why: moto's TransactWriteItems takes back a failed transaction by putting copies of whole tables back, and with them
loses what other requests wrote meanwhile (measured: 6 of 180 puts). Under the lock one request runs at a time.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any


def serialise_dynamodb() -> None:
    """Make every DynamoDB request take one lock."""
    handler: Any = importlib.import_module("moto.dynamodb.responses").DynamoHandler
    lock, inner = threading.RLock(), handler.call_action

    def call_action(self: object) -> object:
        with lock:
            return inner(self)

    handler.call_action = call_action


if __name__ == "__main__":
    serialise_dynamodb()
    importlib.import_module("moto.server").main(sys.argv[1:])
