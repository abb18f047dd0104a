"""How many strangers may be at the door."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.listeners.limits import Strangers


def test_one_peer_cannot_take_the_whole_door() -> None:
    """A machine that opens and never speaks leaves room for others."""
    door = Strangers(total=3, per_peer=2)
    assert door.enter("a")
    assert door.enter("a")
    assert door.enter("a") is None
    assert door.enter("b")
    assert door.enter("c") is None, "the total"


def test_a_place_is_given_back_once() -> None:
    """Giving back twice would let one more in each time."""
    door = Strangers(total=1, per_peer=1)
    leave = door.enter("a")
    assert leave is not None
    leave()
    leave()
    assert len(door) == 0
    assert door.enter("b")
    assert door.enter("c") is None


def test_the_longest_silent_stranger_makes_room() -> None:
    """Slow-loris: connections that never speak must not keep out a client behind the same address."""
    door = Strangers(total=3, per_peer=2)
    dropped: list[str] = []
    first, second = (door.enter("a", partial(dropped.append, name)) for name in ("first", "second"))
    assert first is not None
    assert second is not None
    assert door.enter("a", lambda: dropped.append("third"))
    assert (dropped, first.dropped, second.dropped) == (["first"], True, False)
    first()  # its task ends later, and gives back nothing of another's
    assert len(door) == 2


def test_who_has_spoken_makes_room_for_nobody() -> None:
    """Else whoever opens connections fast enough ends everybody's handshake."""
    door = Strangers(total=2, per_peer=2)
    for peer in "ab":
        place = door.enter(peer, lambda: None)
        assert place is not None
        place.spoke()
    assert door.enter("c", lambda: None) is None


def test_a_full_door_drops_the_silent_of_any_peer() -> None:
    """From many addresses the total is what fills, and the same holds for it."""
    door = Strangers(total=2, per_peer=2)
    dropped: list[str] = []
    for peer in "ab":
        assert door.enter(peer, partial(dropped.append, peer))
    assert door.enter("c")
    assert dropped == ["a"]


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_never_more_than_the_bounds(turns: list[tuple[str, bool]]) -> None:
    """Whatever comes and goes."""
    door = Strangers(total=4, per_peer=2)
    inside = []
    for peer, comes in turns:
        if comes:
            leave = door.enter(peer)
            if leave is not None:
                inside.append(leave)
        elif inside:
            inside.pop()()
        assert len(door) == len(inside) <= 4
