"""The approval card: an Ask as Slack blocks, and whether the blocks that somebody clicked are that card. Pure.

Rules: one Ask has one rendering, so that ``decide`` can recompute what the approver saw. Text that somebody else
supplied stands only in ``plain_text`` and in ``rich_text_preformatted``, where Slack reads no mark-up; characters that
would hide or reorder it (controls, bidirectional overrides, zero-width ones) are written out. What will run is shown
whole or not at all: a question that does not fit (:func:`fits_card`) is refused before anybody is asked. A button
carries the Ask's id and nothing else.

Source: Slack's Block Kit reference (limits of header, section, field, actions; 50 blocks a message); the total of about
13,000 characters past which Slack answers ``msg_blocks_too_long`` is slackapi/bolt-js issue 2509.
"""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias, assert_never

from chalicelib.domain.ask import (
    Answer,
    ApprovalState,
    Approved,
    Ask,
    Expired,
    Question,
    Refused,
    Spent,
    Stage,
    UseKind,
    Waiting,
)
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import BadRequest

Block: TypeAlias = dict[str, Json]

APPROVE: Final = "approve"
APPROVE_ON_PAGE: Final = "approve_on_page"  # a link: it approves nothing, and Slack tells us that it was followed
DENY: Final = "deny"
MAX_CARD_TEXT: Final = 6_000  # of what will run; about half of what one message holds, the rest says who, where and why
# Slack's own bounds. Source: docs.slack.dev, reference of the blocks "header" and "section", and "Blocks".
_MAX_HEADER: Final = 150
_MAX_SECTION: Final = 3_000
_MAX_FIELD: Final = 2_000
_MAX_BLOCKS: Final = 50
_MAX_CARD: Final = 11_500  # characters of JSON; below Slack's 13,000, so that nine answers still fit under it
_DIGEST_SHOWN: Final = 16  # hexadecimal digits: 64 bits, enough for two people to compare by eye
# What Slack itself adds to the blocks that it gives back.
_ADDED_BY_SLACK: Final = frozenset({"block_id", "emoji", "verbatim", "border"})


def render_card(ask: Ask, answers: Sequence[Answer] = (), *, at: str) -> list[Block]:
    """Return the open card: the question, the answers so far, and the buttons; where a rule needs a passkey, a link to
    the approval page in the place of the one that approves. ``at`` is the deployment's approval address.

    Raises BadRequest where the question does not fit on a card: part of it is never shown.
    """
    blocks = [*_question(ask.question), *_progress(ask, answers), _facts(ask), _buttons(ask, at)]
    if not _fits(blocks):
        raise BadRequest("this is too long to show to an approver", ask=ask.id)
    return blocks


def render_decided(ask: Ask, state: ApprovalState, answers: Sequence[Answer]) -> list[Block]:
    """Return the card without buttons, saying who answered and what became of the Ask."""
    said = [_said(answer) for answer in sorted(answers, key=lambda answer: (answer.answered_at, answer.person))]
    word, more = _became(state)
    return [*_question(ask.question, word), _plain("\n".join([*said, *more] or [word])), _facts(ask)]


def card_summary(ask: Ask) -> str:
    """Return the line that notifications show: nothing in it was supplied by the asker."""
    return f"Approval needed: {_what(ask.question)} on {ask.question.target} ({ask.id})"


def fits_card(question: Question) -> bool:
    """Return whether a card can show ``question`` whole."""
    return _fits(_question(question))


def page_of(ask: Ask, at: str) -> str:
    """Return the address at which the Ask is answered with a passkey."""
    return f"{at}/v1/asks/{ask.id}/approve"


def same_card(clicked: Json, ask: Ask, answers: Sequence[Answer], *, at: str) -> bool:
    """Return whether ``clicked``, the blocks in a click, are this Ask's card."""
    return any(_same(card, clicked) for card in cards_so_far(ask, answers, at=at))


def cards_so_far(ask: Ask, answers: Sequence[Answer], *, at: str) -> Iterator[list[Block]]:
    """Give every card that this Ask has had. It is drawn again after each answer, and a person may answer before seeing
    that, so the card after any number of the answers so far is this Ask's."""
    given = sorted(answers, key=lambda answer: (answer.answered_at, answer.person))
    return (render_card(ask, given[:count], at=at) for count in range(len(given) + 1))


def visible(text: str) -> str:
    """Return ``text`` with every character written out that would not show, or would change how others show."""
    return "".join(char if _shows(char) else f"\\u{{{ord(char):x}}}" for char in text)


def _shows(char: str) -> bool:
    if char in "\n\t ":
        return True
    # C: controls, bidirectional overrides, zero-width, unassigned. Z: line ends and spaces that are not the space.
    return unicodedata.category(char)[0] not in "CZ"


def _question(question: Question, word: str = "Approval needed") -> list[Block]:
    exact = "What will run, exactly" if question.stage is Stage.OPERATION else "What is asked"
    blocks: list[Block] = [
        {"type": "header", "text": _plain_text(f"{word}: {_what(question)} on {question.target}")},
        _table(
            ("Target", question.target),
            ("As", question.principal),
            ("For", _duration(question)),
            ("Why", question.reason),
            ("Rule", ", ".join(question.rules)),
        ),
        _heading("Who asks, from the originator down"),
        _plain("\n".join(f"{place}. {line}" for place, line in enumerate(question.chain, 1))),
        _heading(exact),
        _preformatted(question.text),
    ]
    if question.binds:
        blocks += [_heading("Values"), _preformatted("\n".join(question.binds))]
    if question.literals:
        blocks.append(_plain("Hidden in the text above: " + "; ".join(question.literals)))
    if question.state:
        blocks.append(_plain(" · ".join(f"{name}: {value}" for name, value in question.state)))
    blocks += [{"type": "divider"}, _heading("Who may approve"), _plain("\n".join(_needs(question)))]
    if not question.trigger_known:
        blocks.append(_plain("Trigger unknown: nobody is named as behind this run, so two people must approve."))
    return blocks


def _what(question: Question) -> str:
    return "session" if question.stage is Stage.REQUEST else "operation"


def _duration(question: Question) -> str:
    if question.stage is Stage.OPERATION:
        return "this operation, once"
    minutes, seconds = divmod(question.duration_s, 60)
    parts = [f"{minutes} minute{'s' * (minutes != 1)}"] if minutes else []
    return " ".join([*parts, f"{seconds} s"] if seconds or not parts else parts)


def _needs(question: Question) -> list[str]:
    lines = []
    for need in question.needs:
        people = "person" if need.approval.count == 1 else "people"
        how = " with a passkey" if need.approval.webauthn else ""
        hint = f" · {need.hint}" if need.hint else ""
        lines.append(f"{need.approval.count} {people} of {need.approval.group}{how} · rule {need.rule}{hint}")
    return [*lines, "Nobody who is behind this run may answer. Each approval counts once, for exactly this."]


def _progress(ask: Ask, answers: Sequence[Answer]) -> list[Block]:
    said = [_said(answer) for answer in sorted(answers, key=lambda answer: (answer.answered_at, answer.person))]
    if not said:
        return []
    wanted = ", ".join(need.approval.phrase for need in ask.question.needs)
    return [_plain("\n".join([*said, f"Needed: {wanted}"]))]


def _said(answer: Answer) -> str:
    how = "" if answer.assertion is None else " with a passkey"
    return f"{'Approved' if answer.approved else 'Refused'} by {answer.person}{how} at {_moment(answer.answered_at)}"


def _became(state: ApprovalState) -> tuple[str, list[str]]:
    """Return the word for the card's title, and what is to say beside who answered."""
    match state:
        case Approved():
            return "Approved", []
        case Refused():
            return "Refused", []
        case Expired():
            return "Expired", ["Not enough people answered in time"]
        case Spent() if state.use.kind is UseKind.RAN:
            return "Approved", [f"Used at {_moment(state.use.at)}"]
        case Spent():
            return "Withdrawn", [f"Withdrawn at {_moment(state.use.at)}"]
        case Waiting():
            missing = ", ".join(f"{count} more of {need.approval.group}" for need, count in state.missing)
            return "Approval needed", [f"Waiting for {missing}"]
        case _:
            assert_never(state)


def _facts(ask: Ask) -> Block:
    facts = (
        f"Expires {_moment(ask.expires_at)}",
        ask.id,
        f"digest {ask.digest[:_DIGEST_SHOWN]}",
        f"txn {ask.question.txn}",
    )
    return {"type": "context", "elements": [_plain_text(" · ".join(facts))]}


def _buttons(ask: Ask, at: str) -> Block:
    approve: Block = {
        "type": "button",
        "action_id": APPROVE,
        "style": "primary",
        "text": _plain_text("Approve"),
        "value": ask.id,
    }
    if ask.question.needs_passkey:
        approve |= {"action_id": APPROVE_ON_PAGE, "text": _plain_text("Approve with a passkey")}
        approve["url"] = page_of(ask, at)
    # Whoever may answer may refuse from Slack, whatever the rule: a refusal by who stole an account stops, never opens.
    deny: Block = {"type": "button", "action_id": DENY, "style": "danger", "text": _plain_text("Deny"), "value": ask.id}
    return {"type": "actions", "elements": [approve, deny]}


def _table(*rows: tuple[str, str]) -> Block:
    fields: list[Json] = []
    for label, value in rows:
        fields += [{"type": "mrkdwn", "text": f"*{label}*"}, _plain_text(value or "–")]
    return {"type": "section", "fields": fields}


def _heading(text: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": f"*{text}*"}}


def _plain(text: str) -> Block:
    return {"type": "section", "text": _plain_text(text)}


def _plain_text(text: str) -> dict[str, Json]:
    # Slack decodes these three in plain_text too; without it, the words "&lt;" in a reason would show as "<".
    return {"type": "plain_text", "text": html.escape(visible(text), quote=False), "emoji": False}


def _preformatted(text: str) -> Block:
    shown: dict[str, Json] = {"type": "text", "text": visible(text)}
    return {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [shown]}]}


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _fits(blocks: Sequence[Block]) -> bool:
    if len(blocks) > _MAX_BLOCKS or len(json.dumps(blocks, ensure_ascii=False)) > _MAX_CARD:
        return False
    return all(_fits_block(block) for block in blocks)


def _fits_block(block: Mapping[str, Json]) -> bool:
    match block:
        case {"type": "header", "text": {"text": str(text)}}:
            return len(text) <= _MAX_HEADER
        case {"type": "section", "text": {"text": str(text)}}:
            return 0 < len(text) <= _MAX_SECTION
        case {"type": "section", "fields": [*fields]}:
            return all(isinstance(field, Mapping) and len(str(field["text"])) <= _MAX_FIELD for field in fields)
        case {"type": "rich_text", "elements": [{"elements": [{"text": str(text)}]}]}:
            return 0 < len(text) <= MAX_CARD_TEXT
        case _:
            return True


def _same(ours: Json, theirs: Json) -> bool:
    if isinstance(ours, Mapping):
        if not isinstance(theirs, Mapping) or not set(theirs) - set(ours) <= _ADDED_BY_SLACK:
            return False
        return all(key in theirs and _same(value, theirs[key]) for key, value in ours.items() if key != "emoji")
    if isinstance(ours, str):
        return isinstance(theirs, str) and html.unescape(ours) == html.unescape(theirs)
    if isinstance(ours, Sequence):
        if not isinstance(theirs, Sequence) or isinstance(theirs, str) or len(ours) != len(theirs):
            return False
        return all(_same(one, other) for one, other in zip(ours, theirs, strict=True))
    return ours == theirs
