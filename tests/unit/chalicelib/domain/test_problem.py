"""Problems of a bundle travel in one error, each with its place and remedy."""

from __future__ import annotations

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.problem import Problem, configuration_invalid, problems_of


def problem(file: str, line: int) -> Problem:
    return Problem(file=file, line=line, message="it is wrong", remedy="Correct it.")


def test_all_problems_travel_in_the_order_of_their_places() -> None:
    """An author goes through the files from top to bottom."""
    found = (problem("b", 1), problem("a", 9), problem("a", 2))
    error = configuration_invalid(found)
    assert problems_of(error, file="?") == (problem("a", 2), problem("a", 9), problem("b", 1))
    assert error.public == "a:2: it is wrong. Correct it. (and 2 more)"


def test_a_problem_of_a_whole_file_names_no_line() -> None:
    """Line 0 would send an editor nowhere."""
    assert problem("a", 0).text() == "a: it is wrong. Correct it."
    assert configuration_invalid((problem("a", 0),)).public == "a: it is wrong. Correct it."


def test_an_error_without_problems_is_one_itself() -> None:
    """Whoever prints problems prints something for every refusal of a bundle."""
    for error in (
        ConfigurationInvalid("no"),
        ConfigurationInvalid("no", problems=("x",)),
        ConfigurationInvalid("no", problems=()),
    ):
        assert problems_of(error, file="f") == (
            Problem(file="f", line=0, message="no", remedy="Run `countersign config check` on the bundle."),
        )
