"""Endpoint: our half of one SSH channel, its numbers and its messages.

Rules: nothing is sent before the peer has confirmed the channel, since its number is not known; CLOSE is sent once, and
nothing after it; EOF once, and no data after it; the number is forgotten when both have closed. A peer's CLOSE is not
answered here: who has more to say (an exit status) says it first, as sshd does. Windows are not known here
(``one_way``); neither is what a channel is for.

Source: RFC 4254 sections 5.2 and 5.3.
"""

from __future__ import annotations

import threading
from typing import Protocol

from broker.wire.ssh import messages


class Transport(Protocol):
    """What an endpoint sends through."""

    @property
    def open(self) -> bool: ...
    def post(self, payload: bytes) -> None: ...
    def forget(self, number: int) -> None: ...


class EndpointOwner(Protocol):
    """Who uses an endpoint. Every call comes in the reading thread of its transport, and must not raise."""

    def confirmed(self, confirmation: messages.Confirmation) -> None: ...
    def refused(self) -> None:
        """The peer did not open it."""
        ...

    def data(self, kind: int, data: bytes) -> None: ...
    def adjusted(self, count: int) -> None:
        """The peer takes ``count`` bytes more."""
        ...

    def request(self, request: messages.ChannelRequest) -> None: ...
    def replied(self, ok: bool) -> None: ...
    def ended_input(self) -> None: ...
    def closed(self) -> None:
        """The peer closed it, and sends no more; it still reads."""
        ...

    def gone(self) -> None:
        """Both have closed it. In whichever thread came second."""
        ...


class _Nobody:
    """Takes what comes late for a channel that is gone."""

    open = False

    def post(self, payload: bytes) -> None:
        pass

    def forget(self, number: int) -> None:
        pass

    def confirmed(self, confirmation: messages.Confirmation) -> None:
        pass

    def refused(self) -> None:
        pass

    def data(self, kind: int, data: bytes) -> None:
        pass

    def adjusted(self, count: int) -> None:
        pass

    def request(self, request: messages.ChannelRequest) -> None:
        pass

    def replied(self, ok: bool) -> None:
        pass

    def ended_input(self) -> None:
        pass

    def closed(self) -> None:
        pass

    def gone(self) -> None:
        pass


class Endpoint:
    """One half. Its sending methods are for any thread."""

    def __init__(self, transport: Transport, number: int, owner: EndpointOwner) -> None:
        self.transport = transport
        self.number = number
        self.owner = owner
        self.remote = 0
        self.confirmed = False
        self._lock = threading.Lock()
        self._eof_sent = False
        self._close_sent = False
        self._close_taken = False

    @classmethod
    def nobody(cls) -> Endpoint:
        """Return the endpoint of a channel that is gone."""
        nobody = _Nobody()
        endpoint = cls(nobody, 0, nobody)
        endpoint.confirmed = endpoint._close_sent = True
        return endpoint

    # Sent.

    def confirm(self, remote: int, window: int, max_packet: int) -> None:
        """Tell the peer, who calls this channel ``remote``, that it is open."""
        self.remote, self.confirmed = remote, True
        self._post(messages.encode_confirmation(remote, self.number, window, max_packet))

    def send(self, kind: int, data: bytes) -> None:
        if not self._eof_sent:
            self._post(messages.encode_data(self.remote, kind, data))

    def adjust(self, count: int) -> None:
        self._post(messages.encode_adjust(self.remote, count))

    def ask(self, name: str, rest: bytes, *, want_reply: bool = False) -> None:
        self._post(messages.encode_request(self.remote, name, rest, want_reply=want_reply))

    def reply(self, *, ok: bool) -> None:
        self._post(messages.encode_plain(messages.SUCCESS if ok else messages.FAILURE, self.remote))

    def end_input(self) -> None:
        with self._lock:
            sent, self._eof_sent = self._eof_sent, True
        if not sent:
            self._post(messages.encode_plain(messages.EOF, self.remote))

    def close(self) -> None:
        with self._lock:
            if self._close_sent or not self.confirmed:
                return
            self._close_sent = True
            over = self._close_taken
        self.transport.post(messages.encode_plain(messages.CLOSE, self.remote))
        if over:
            self._gone()

    # Taken, in the transport's thread.

    def take_confirmation(self, confirmation: messages.Confirmation) -> None:
        self.remote, self.confirmed = confirmation.sender, True
        self.owner.confirmed(confirmation)

    def take_data(self, body: bytes) -> None:
        self.owner.data(messages.STDOUT, messages.parse_data(body))

    def take_extended(self, body: bytes) -> None:
        self.owner.data(*messages.parse_extended(body))

    def take_adjust(self, body: bytes) -> None:
        self.owner.adjusted(messages.parse_adjust(body))

    def take_request(self, body: bytes) -> None:
        self.owner.request(messages.parse_request(body))

    def take_close(self) -> None:
        with self._lock:
            self._close_taken = True
            over = self._close_sent
        self.owner.closed()
        if over:
            self._gone()

    def _gone(self) -> None:
        self.transport.forget(self.number)
        self.owner.gone()

    def _post(self, payload: bytes) -> None:
        if self.confirmed and not self._close_sent:
            self.transport.post(payload)
