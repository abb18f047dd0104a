"""A YAML file as plain values with the line of each: what errors need to name a place.

Rules: the subset of YAML that a person reads one way only. No anchors or aliases (nine lines of them expand to
gigabytes), no tags, no duplicate or non-text keys, no nesting past 16 levels, 1 MiB at most. Plain ``true``, ``false``,
``null`` and decimal integers have those types; everything else is text, so that ``no``, ``1:30``, ``0x10`` and
``2026-01-01`` are what they look like. Events are read with a stack of our own: depth costs no recursion.

Does not: know what the values mean. Source: YAML 1.2.2 chapter 10.3 (core schema), of which this is less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml

from chalicelib.config.files import MAX_FILE_BYTES
from chalicelib.domain.problem import Problem

MAX_DEPTH: Final = 16  # the deepest of our files has 6
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")  # at most 18 digits: a 64-bit integer whatever they are
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None, "~": None, "": None}
# libyaml where PyYAML was built with it: ten times faster, and a cold start reads these files.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Plain: TypeAlias = "str | int | bool | list[Plain] | dict[str, Plain] | None"
Path: TypeAlias = "tuple[str | int, ...]"


@dataclass(kw_only=True, slots=True)
class Node:
    """One value. ``line`` is where it starts, for a mapping's value where its key is; ``below`` are the values in it,
    by key or index."""

    line: int
    value: str | int | bool | None = None
    below: dict[str | int, Node] | None = None
    is_list: bool = False

    def plain(self) -> Plain:
        """Return the value without its lines."""
        if self.below is None:
            return self.value
        if self.is_list:
            return [node.plain() for node in self.below.values()]
        return {str(key): node.plain() for key, node in self.below.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A file that was read."""

    file: str
    root: Node

    def line(self, path: Sequence[str | int]) -> int:
        """Return the line of what ``path`` leads to, or of the last of it that is there.

        A part that is not there is skipped: the path that a model reports has names of alternatives in it.
        """
        node = self.root
        for part in path:
            node = (node.below or {}).get(part, node)
        return node.line

    def problem(self, path: Sequence[str | int], message: str, remedy: str) -> Problem:
        return Problem(file=self.file, line=self.line(path), message=message, remedy=remedy)


class _Refused(Exception):
    """Ends the reading of a file at ``line``."""

    def __init__(self, line: int, message: str, remedy: str) -> None:
        super().__init__(message)
        self.line, self.message, self.remedy = line, message, remedy


@dataclass(kw_only=True, slots=True)
class _Builder:
    """Collects events into nodes. ``key`` holds a mapping's key until its value comes."""

    root: Node | None = None
    open: list[Node] = field(default_factory=list)
    keys: list[tuple[str, int] | None] = field(default_factory=list)

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        match event:
            case yaml.AliasEvent():
                raise _Refused(line, "an alias stands for something written elsewhere", "Write the value out.")
            case yaml.ScalarEvent() | yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check(event, line)
                self._value(event, line)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self.open.pop()
                self.keys.pop()
            case yaml.DocumentStartEvent() if self.root is not None:
                raise _Refused(line, "there is a second document in the file", "Keep one document a file.")
            case _:
                pass

    def _check(self, event: yaml.NodeEvent, line: int) -> None:
        if event.anchor is not None:
            raise _Refused(line, f"the anchor &{event.anchor} is not allowed", "Write the value out where it is used.")
        if getattr(event, "tag", None) is not None:
            raise _Refused(line, "a tag (!...) is not allowed", "Write plain text, numbers, true or false.")
        if len(self.open) >= MAX_DEPTH:
            raise _Refused(line, f"values are nested more than {MAX_DEPTH} deep", "Follow the file's schema.")

    def _value(self, event: yaml.NodeEvent, line: int) -> None:
        parent = self.open[-1] if self.open else None
        if parent is not None and not parent.is_list and self.keys[-1] is None:
            self.keys[-1] = (self._key(event, parent, line), line)
            return
        node = _node(event, line)
        if parent is None:
            self.root = node
        elif parent.below is not None:
            key: str | int = len(parent.below)
            if self.keys[-1] is not None:
                key, node.line = self.keys[-1]
                self.keys[-1] = None
            parent.below[key] = node
        if node.below is not None:
            self.open.append(node)
            self.keys.append(None)

    @staticmethod
    def _key(event: yaml.NodeEvent, parent: Node, line: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _Refused(line, "a key is a list or a mapping", "Use plain text as the key.")
        before = (parent.below or {}).get(event.value)
        if before is not None:
            raise _Refused(line, f"the key {event.value!r} is already on line {before.line}", "Keep one of the two.")
        return str(event.value)


def _node(event: yaml.NodeEvent, line: int) -> Node:
    if isinstance(event, yaml.SequenceStartEvent):
        return Node(line=line, below={}, is_list=True)
    if isinstance(event, yaml.MappingStartEvent):
        return Node(line=line, below={})
    text = str(getattr(event, "value", ""))
    if getattr(event, "style", None) in ("'", '"', "|", ">"):  # libyaml calls plain "", PyYAML None
        return Node(line=line, value=text)
    if text in _WORDS:
        return Node(line=line, value=_WORDS[text])
    return Node(line=line, value=int(text) if _INTEGER.match(text) else text)


def read_document(file: str, data: bytes) -> Document | Problem:
    """Return the document in ``data``, or what is wrong with it: one problem, since YAML does not recover."""
    try:
        return Document(file=file, root=_build(data))
    except _Refused as refused:
        line, message, remedy = refused.line, refused.message, refused.remedy
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # libyaml puts what is missing at the end on a line after the last, where no editor can go.
        line = min(mark.line, data.count(b"\n")) + 1 if mark is not None else 0
        message, remedy = f"this is not YAML: {error.problem or error.context}", "Check indentation, colons and quotes."
    except yaml.YAMLError:
        line, message, remedy = 0, "the file holds characters that YAML does not allow", "Remove control characters."
    return Problem(file=file, line=line, message=message, remedy=remedy)


def _build(data: bytes) -> Node:
    builder = _Builder()
    for event in _events(_decode(data)):
        builder.take(event)
    if builder.root is None or builder.root.below is None or builder.root.is_list:
        raise _Refused(1, "the file is not a mapping of keys to values", "Start from the file's schema.")
    return builder.root


def _events(text: str) -> Iterator[yaml.Event]:
    loader = _LOADER(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _decode(data: bytes) -> str:
    """Return ``data`` as text. Raises _Refused past the size limit and on bytes that are not UTF-8."""
    if len(data) > MAX_FILE_BYTES:
        raise _Refused(0, f"the file has more than {MAX_FILE_BYTES} bytes", "Split or shorten it.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Refused(line, "the file is not UTF-8 text", "Save it as UTF-8.") from None


def read_text(file: str, data: bytes) -> str | Problem:
    """Return ``data`` as text, or what is wrong with it, under the same limits."""
    try:
        return _decode(data)
    except _Refused as refused:
        return Problem(file=file, line=refused.line, message=refused.message, remedy=refused.remedy)
