"""How many strangers may be at the door."""

from __future__ import annotations

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
