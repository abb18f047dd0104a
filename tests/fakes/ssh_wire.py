"""A transport that keeps what an endpoint sends, and may be exchanging keys."""

from __future__ import annotations

from broker.wire.ssh import messages


class FakeWire:
    """Keeps the contract of ``broker.engines.ssh.endpoint.Transport``."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.forgotten: list[int] = []
        self.open = True

    def post(self, payload: bytes) -> None:
        self.sent.append(payload)

    def forget(self, number: int) -> None:
        self.forgotten.append(number)

    @property
    def kinds(self) -> list[int]:
        """The numbers of the messages that were sent."""
        return [sent[0] for sent in self.sent]

    @property
    def data(self) -> bytes:
        """What was sent as plain data."""
        return b"".join(messages.parse_data(sent[5:]) for sent in self.sent if sent[0] == messages.DATA)

    @property
    def granted(self) -> int:
        """The room that was given back."""
        return sum(messages.parse_adjust(sent[5:]) for sent in self.sent if sent[0] == messages.WINDOW_ADJUST)
