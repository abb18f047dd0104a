"""A process that records under load until it is killed: ``python -m tests.adversity.recorder_process``, order on stdin.

Everything of the recorder is real: threads, pool, spool, clock. It writes a line for what a client would have seen:
``accepted N T`` (an ordinary operation that was forwarded at T), ``durable N T`` (one that had to be durable first) and
``spooled N T``. Whoever kills it compares these with the record. With ``file_bytes`` no file of it may grow larger, as
on a disk that is full; it says ``refused N T`` once when nothing more is taken, and waits for its end.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from pathlib import Path
from threading import Event
from typing import Any

from broker.recorder import Recorder, Recording
from broker.recorder.spool import Spool
from broker.recorder.window import SPOOL_EVERY_S
from broker.threads import Periodic, WorkerPool
from chalicelib.domain.errors import RecordingUnavailable
from chalicelib.domain.recording import FrameKind, RecordedAs
from chalicelib.settings import SystemClock
from tests.fakes.directory import DirectoryObjects, Trouble
from tests.fakes.memory import MemoryStores

CLOCK = SystemClock()


def say(word: str, number: int) -> None:
    sys.stdout.write(f"{word} {number} {CLOCK.monotonic_s():.6f}\n")
    sys.stdout.flush()


def operate(recording: Recording, number: int, size: int) -> None:
    """Record one operation that is forwarded, with a text that names it."""
    op = f"op_{number}"
    meta: tuple[tuple[str, Any], ...] = (
        ("op", op),
        ("actions", ["sql:read"]),
        ("verdict", "forward"),
        ("rules", ["read"]),
    )
    recording.accept(FrameKind.OPERATION, "c2s", f"{number} " + "x" * size, meta)


def work(recorder: Recorder, recording: Recording, seed: int, *, spooling: bool) -> None:
    chance = random.Random(seed)
    pause = Event()
    recording.accept(FrameKind.OPEN, "ctl", meta=(("configuration_serial", 3),))
    recorder.make_durable(recording)
    number = 0
    while True:
        number += 1
        while recording.behind:
            pause.wait(0.001)
        try:
            one(recorder, recording, number, chance.choice((10, 100, 3000, 30_000)), spooling=spooling)
        except RecordingUnavailable:
            say("refused", number)
            pause.wait()
        if chance.random() < 0.2:
            pause.wait(chance.uniform(0, 0.01))


def one(recorder: Recorder, recording: Recording, number: int, size: int, *, spooling: bool) -> None:
    operate(recording, number, size)
    if number % 40 == 0:
        recorder.make_durable(recording)
        say("durable", number)
    elif spooling and number % 25 == 0:
        recording.spool()
        say("spooled", number)
    else:
        say("accepted", number)


def main() -> None:
    order = json.loads(sys.stdin.readline())
    if order.get("file_bytes"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the limit kills, and no write fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], order["file_bytes"]))
    stores = MemoryStores()
    spool = Spool(Path(order["spool"]), order["boot"]) if order["spool"] else None
    recorder = Recorder(
        objects=DirectoryObjects(Path(order["bucket"]), Trouble(**order["trouble"])),
        connections=stores.connections,
        signer=stores.signer("record"),
        pool=WorkerPool("uploads", threads=16, queue=4096),
        clock=CLOCK,
        build="test",
        sealed_by="broker:killed",
        spool=spool,
    )
    recording = recorder.start(RecordedAs(**order["who"]))
    Periodic("recorder", recorder.step, every_s=0.1).start()
    if spool is not None:
        Periodic("spool", recorder.spool, every_s=SPOOL_EVERY_S).start()
    work(recorder, recording, order["seed"], spooling=spool is not None)


if __name__ == "__main__":
    main()
