"""The one exception that bytes from a peer can raise in a protocol machine: the peer broke the protocol.

The error that *we* made is any other exception. After a RemoteViolation the machine is finished: the engine says so in
the peer's protocol and closes (h11's split of local and remote errors).
"""

from __future__ import annotations


class RemoteViolation(Exception):
    """``what`` says which rule was broken; it holds no byte that the peer sent, so it may be logged and shown."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
