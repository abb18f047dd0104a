"""YAML that a person reads one way only, with the line of everything, and junk that gives a problem and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.config.document import MAX_DEPTH, Document, Plain, read_document
from chalicelib.config.files import MAX_FILE_BYTES
from chalicelib.domain.problem import Problem


def plain(text: str) -> Plain:
    document = read_document("f.yaml", text.encode())
    assert isinstance(document, Document)
    return document.root.plain()


def refused(data: bytes) -> tuple[int, str]:
    problem = read_document("f.yaml", data)
    assert isinstance(problem, Problem)
    assert problem.file == "f.yaml"
    assert problem.remedy
    return problem.line, problem.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1),
        ("a: -5", -5),
        ("a: true", True),
        ("a: false", False),
        ("a: null", None),
        ("a: ~", None),
        ("a:", None),
        ('a: "1"', "1"),
        ("a: 'true'", "true"),
        ('a: ""', ""),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        ("a: [1, two, [3]]", [1, "two", [3]]),
        ("a: {b: {c: d}}", {"b": {"c": "d"}}),
        ("a: []", []),
        ("a: {}", {}),
        # What YAML 1.1 would make something else of:
        ("a: no", "no"),
        ("a: On", "On"),
        ("a: 1:30", "1:30"),
        ("a: 0x10", "0x10"),
        ("a: 010", "010"),
        ("a: 1.5", "1.5"),
        ("a: 2026-01-01", "2026-01-01"),
        ("a: 123456789012345678901234567890", "123456789012345678901234567890"),
        ("a: <<", "<<"),
    ],
)
def test_values_are_what_they_look_like(text: str, value: Plain) -> None:
    """A country code is not false, a version is not a number, an id with a leading zero is not octal."""
    assert plain(text) == {"a": value}


def test_every_value_has_its_line() -> None:
    """Errors name the line where the author looks: the key's, or the list's item."""
    document = read_document("f", b"# note\na:\n  b: 1\n  c:\n    - x\n    - y: 2\n      z: 3\nd: {e: 4,\n  f: 5}\n")
    assert isinstance(document, Document)
    paths: dict[tuple[str | int, ...], int] = {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "z"): 7,
        ("d", "e"): 8,
        ("d", "f"): 9,
        ("a", "nothing"): 2,
        ("a", "alternative", "b"): 3,
    }
    assert {path: document.line(path) for path in paths} == paths


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (b"", 1, "not a mapping"),
        (b"# only a comment", 1, "not a mapping"),
        (b"- a", 1, "not a mapping"),
        (b"just text", 1, "not a mapping"),
        (b"a: 1\nb: 2\na: 3", 3, "'a' is already on line 1"),
        (b"a:\n  b: 1\n  b: 2", 3, "'b' is already on line 2"),
        (b"a: &x 1\nb: *x", 1, "anchor &x"),
        (b"a: *x", 1, "alias"),
        (b"a: !!python/object/apply:os.system [id]", 1, "tag"),
        (b"a: !!str 1", 1, "tag"),
        (b"? [a]\n: 1", 1, "a key is a list"),
        (b"a: 1\n---\nb: 2", 2, "second document"),
        (b"a: [1, 2", 1, "not YAML"),
        (b"a: 1\n b: 2", 2, "not YAML"),
        (b"a:\n\t- b", 2, "not YAML"),
        (b"a: 'x", 1, "not YAML"),
        (b"a: 1\nb: \xff", 2, "not UTF-8"),
        (b"a: \x00", 0, "characters"),
        (b"a: " + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), 1, "nested more than"),
        (b"a: " + b"[" * 100_000, 1, "nested more than"),
        (b"a: " + b"x" * MAX_FILE_BYTES, 0, "more than"),
    ],
)
def test_what_could_be_read_two_ways_or_without_end_is_refused(data: bytes, line: int, says: str) -> None:
    """Duplicates, aliases, tags, depth, size: each with its line."""
    found, message = refused(data)
    assert says in message
    assert found == line


def test_a_billion_laughs() -> None:
    """The classic expansion is refused at its first anchor, whatever it would have become."""
    lines = ["a0: &a0 lol"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert refused("\n".join(lines).encode()) == (1, "the anchor &a0 is not allowed")


@given(
    st.one_of(st.binary(max_size=300), st.text(alphabet="ab:-?[]{}&*!|>'\"#%@`, \n\t0", max_size=120).map(str.encode))
)
def test_junk_gives_a_document_or_one_problem(data: bytes) -> None:
    """No exception, and what is read is a mapping."""
    document = read_document("f", data)
    assert isinstance(document, Problem) or isinstance(document.root.plain(), dict)
