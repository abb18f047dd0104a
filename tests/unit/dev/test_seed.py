"""What is planted: the counts that the contract names, unique, and what a detector would find."""

from __future__ import annotations

from dev import seed


def test_the_rows_are_those_of_the_contract_and_the_same_every_time() -> None:
    """Other people's tests count on 1,000 and 10,000, and on finding today what they found yesterday."""
    customers, orders = list(seed.customers()), list(seed.orders())
    assert [len(customers), len(orders)] == [1000, 10000]
    assert customers == list(seed.customers())
    assert {order.customer_id for order in orders} <= {customer.id for customer in customers}


def test_every_planted_value_is_unique_and_listed() -> None:
    """A value that is listed twice, or not, would let a leak pass."""
    planted = seed.planted()
    assert len(planted) == len(set(planted)) == 2000
    assert {value for row in seed.customers() for value in (row.email, row.card_number)} == set(planted)


def test_card_numbers_pass_luhns_check() -> None:
    """A detector that checks the last digit must find each of them. Summed from the other end than the seed does."""
    for row in seed.customers():
        assert len(row.card_number) == 16
        total = 0
        for place, digit in enumerate(reversed(row.card_number)):
            value = int(digit) << (place % 2)
            total += value // 10 + value % 10
        assert total % 10 == 0
