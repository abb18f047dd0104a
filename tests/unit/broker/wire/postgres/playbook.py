"""A conversation read as it happens: what the client sends on, what the server answers, and whose each answer is.

Example::

    book = Playbook()
    book.query("one")
    book.answers("T D C Z(I)", whose="one")
"""

from __future__ import annotations

import re

from broker.wire.postgres import messages
from broker.wire.postgres.conversation import Conversation, Expected, Portal, Statement
from broker.wire.postgres.messages import PORTAL, STATEMENT, Bind
from tests.vectors.postgres.replay import frames

_TOKEN = re.compile(r"(\w)(?:\((\w*)\))?")


class Playbook:
    """A Conversation with names for what is sent and a notation for what is answered: letters of server messages, the
    transaction status of Z in parentheses."""

    def __init__(self) -> None:
        self.talk = Conversation()

    def discarding(self) -> bool:
        return self.talk.discarding

    def in_transaction(self) -> bool:
        return self.talk.in_transaction

    def query(self, tag: object, *, refused: bool = False) -> Expected:
        return self.talk.query(tag, refusal=b"refused" if refused else b"")

    def parse(self, name: bytes, text: bytes, *, refused: bool = False) -> Statement:
        statement = Statement(name, text, (), text)
        self.talk.parse(statement, refusal=b"refused" if refused else b"")
        return statement

    def bind(self, portal: bytes, statement: bytes) -> Portal:
        found = self.talk.statement(statement)
        assert found is not None, "the statement is not known"
        bound = Portal(portal, found, Bind(portal, statement, (), (), ()))
        self.talk.bind(bound)
        return bound

    def execute(self, portal: bytes, tag: object, *, refused: bool = False) -> None:
        self.talk.execute(self.talk.portal(portal), tag, refusal=b"refused" if refused else b"")

    def close_statement(self, name: bytes) -> None:
        self.talk.close(STATEMENT, name)

    def close_portal(self, name: bytes) -> None:
        self.talk.close(PORTAL, name)

    def sync(self) -> None:
        self.talk.sync()

    def answers(self, letters: str, *, whose: object = "nobody") -> list[Expected | None]:
        """Let the server answer; every answer must belong to ``whose`` (a tag), where that is given."""
        found = []
        for letter, status in _TOKEN.findall(letters):
            body = status.encode() if letter == "Z" else b""
            entry = self.talk.received(ord(letter), body)
            if whose != "nobody" and letter != "Z":
                assert entry is not None
                assert entry.tag == whose
            found.append(entry)
        return found


def replay(crossed: list[tuple[str, bytes]]) -> Conversation:
    """Replay a recorded session, piece by piece, as the engine would tell it."""
    talk = Conversation()
    left = {"c": b"", "s": b""}
    for direction, data in crossed:
        whole = left[direction] + data
        used = 0
        for kind, body in frames(direction, whole):
            used += len(body) + 5
            if direction == "s":
                talk.received(kind, body)
                continue
            match kind:
                case messages.QUERY:
                    talk.query(body)
                case messages.PARSE:
                    parse = messages.parse_parse(body)
                    talk.parse(Statement(parse.name, parse.text, parse.types, None))
                case messages.BIND:
                    bind = messages.parse_bind(body)
                    statement = talk.statement(bind.statement)
                    assert statement is not None
                    talk.bind(Portal(bind.portal, statement, bind))
                case messages.DESCRIBE:
                    named = messages.parse_named(body)
                    if named.kind == messages.STATEMENT:
                        talk.describe_statement(talk.statement(named.name))
                    else:
                        talk.describe_portal(talk.portal(named.name))
                case messages.EXECUTE:
                    portal = talk.portal(messages.parse_execute(body).portal)
                    assert portal is not None
                    talk.execute(portal, None)
                case messages.CLOSE:
                    named = messages.parse_named(body)
                    talk.close(named.kind, named.name)
                case messages.SYNC:
                    talk.sync()
                case messages.COPY_DONE | messages.COPY_FAIL:
                    talk.copy_end()
                case _:
                    pass
        left[direction] = whole[used:]
    return talk
