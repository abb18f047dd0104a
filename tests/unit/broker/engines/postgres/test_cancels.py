"""Cancel keys: ours, never the target's; a guess does nothing."""

from __future__ import annotations

from broker.engines.postgres.cancels import Cancels
from broker.wire.postgres.startup import VERSION_3_0, VERSION_3_2


def test_only_both_halves_of_the_key_cancel() -> None:
    """A process id is shown in lists; the secret is not."""
    called: list[str] = []
    cancels = Cancels()
    process, secret = cancels.register(VERSION_3_0, lambda: called.append("a"))
    other, _ = cancels.register(VERSION_3_0, lambda: called.append("b"))
    assert not cancels.request(process, b"\0\0\0\0" if secret != b"\0\0\0\0" else b"\1\0\0\0")
    assert not cancels.request(process, b"")
    assert not cancels.request(other, secret)
    assert called == []
    assert cancels.request(process, secret)
    assert called == ["a"]


def test_a_connection_that_is_gone_is_not_cancelled() -> None:
    """Its key might be somebody else's by then."""
    cancels = Cancels()
    process, secret = cancels.register(VERSION_3_0, lambda: None)
    cancels.release(process)
    cancels.release(process)
    assert not cancels.request(process, secret)
    assert not cancels.request(12345, b"")


def test_keys_are_as_long_as_the_protocol_allows() -> None:
    """4 bytes in 3.0, 32 in 3.2."""
    cancels = Cancels()
    assert len(cancels.register(VERSION_3_0, lambda: None)[1]) == 4
    assert len(cancels.register(VERSION_3_2, lambda: None)[1]) == 32
