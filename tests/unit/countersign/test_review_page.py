"""The review as one page: that a recorded text is only ever text in it, and that it says what the review says."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.services.reviewed import AccessReview, Finding, FindingKind
from countersign import page_parts, review_graph, review_page
from countersign.markup import page, safe_text, tag
from countersign.page_parts import About
from countersign.review_graph import graph, timeline
from countersign.review_steps import steps_of
from tests.unit.countersign.test_review_screen import (
    APPROVAL,
    DELETE,
    DEPLOY,
    DROP,
    REVIEW,
    REVOCATION,
    ROOT,
    SELECT,
    SESSION,
    START,
    TARGET,
    TOOL,
)

ABOUT = About(
    title="Access review of 01j9",
    facts=(("period", "November"),),
    command="countersign review 01j9",
    anchored=True,
    reviewed_at=START,
)
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> \x1b]0;x\x07 "
    "\u202egnp.exe & <svg onload=alert(2)> javascript:alert(3) -->]]> '\"` {{7*7}}"
)
STORY = replace(REVIEW, hops=(ROOT, replace(DEPLOY, rules=("agents-delegate",)), TOOL, TARGET))


class Read(HTMLParser):
    """What a browser would make of the page, roughly: elements, attributes, texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def made(*reviews: AccessReview, findings: tuple[Finding, ...] = (), about: About = ABOUT) -> Read:
    return Read(review_page.review_page(about, reviews, findings))


def hostile() -> AccessReview:
    """A review of which every text that somebody else may choose is an attack."""
    identity = replace(ROOT.identity, name=HOSTILE, issuer=HOSTILE, subject=HOSTILE)
    hop = replace(ROOT, identity=identity, scope=(HOSTILE,), teams=(HOSTILE,), attributes=((HOSTILE, HOSTILE),))
    child = replace(
        DEPLOY, identity=identity, rules=(HOSTILE,), revoked=replace(REVOCATION, why=HOSTILE, by=HOSTILE, key=HOSTILE)
    )
    target = replace(TARGET, target=HOSTILE, principal=HOSTILE, identity=identity, assurance=HOSTILE)
    approval = replace(APPROVAL, name=HOSTILE, person=HOSTILE, via=HOSTILE, rules=(HOSTILE,), ask_id=HOSTILE)
    operation = replace(
        DELETE, id=HOSTILE, text=HOSTILE, binds=(HOSTILE,), tag=HOSTILE, rules=(HOSTILE,), approvals=(approval,)
    )
    strange = replace(SELECT, id="op_9", verdict=HOSTILE, status=HOSTILE, sqlstate=HOSTILE, code=HOSTILE)
    recording = replace(SESSION.recordings[0], peer=HOSTILE, exit=HOSTILE, connection_id=HOSTILE, manifest_key=HOSTILE)
    session = replace(
        SESSION,
        id=HOSTILE,
        target=HOSTILE,
        principal=HOSTILE,
        reason=HOSTILE,
        status=HOSTILE,
        close_reason=HOSTILE,
        rules=(HOSTILE,),
        actor=identity,
        approvals=(approval,),
        operations=(operation, strange),
        recordings=(recording,),
    )
    return replace(
        REVIEW,
        txn=HOSTILE,
        initiator=identity,
        initiator_assurance=HOSTILE,
        initiator_attributes=((HOSTILE, HOSTILE),),
        accountable=((HOSTILE, HOSTILE),),
        hops=(hop, child, target),
        sessions=(session,),
        findings=(Finding(key=HOSTILE, kind=FindingKind.ALTERED, what=HOSTILE),),
    )


def test_markup_in_what_is_recorded_is_text_in_the_page() -> None:
    """Attack: a statement, a name, a reason, a rule, a file's key is a script. One script and one style are in it, and
    no attribute holds anything of theirs."""
    about = replace(ABOUT, title=HOSTILE, facts=((HOSTILE, HOSTILE),), command=HOSTILE)
    read = made(hostile(), findings=hostile().findings, about=about)
    names = [name for name, _ in read.elements]
    assert (names.count("script"), names.count("style"), names.count("img")) == (1, 1, 0)
    assert set(names) <= {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "span", "dl", "dt", "dd"),
        *("section", "table", "thead", "tbody", "tr", "th", "td", "div", "b", "code", "pre", "ul", "li", "script"),
        *("form", "label", "input", "select", "option", "output", "footer"),
        *("svg", "g", "rect", "path", "circle", "line", "text"),
    }
    for name, attributes in read.elements:
        assert not any(key.startswith("on") for key in attributes), name
        assert not {"href", "src", "srcdoc", "action", "style", "xlink:href"} & set(attributes), name
        assert not any("owned" in (value or "") or "gnp" in (value or "") for value in attributes.values()), name
    assert "document.title='owned'" in read.text, "it is shown as it was"


def test_what_would_turn_the_text_round_is_written_out() -> None:
    """Attack: a change of direction makes another name or statement of the one that is there; an escape hides."""
    text = made(hostile()).text
    assert not set(text) & {"\u202e", "\x1b", "\x07"}
    assert "<U+202E>gnp.exe" in text


@given(st.text())
def test_any_text_is_one_text_node(text: str) -> None:
    """Whatever it is: an element holds it, and nothing else."""
    read = Read(tag("p", text).text)
    assert [name for name, _ in read.elements] == ["p"]
    assert read.text.replace("\n", "") == safe_text(text).replace("\n", "")


@pytest.mark.parametrize("value", ['"', "<", "&", "\n", "é", HOSTILE])
def test_an_attribute_holds_plain_words_alone(value: str) -> None:
    """A recorded text that reached one would be refused, and not escaped: no attribute needs one."""
    with pytest.raises(ValueError, match="attribute"):
        tag("p", title=value)


def test_the_policy_lets_its_own_two_texts_run_and_nothing_be_fetched() -> None:
    """A page that is opened from a folder has no header: the policy is in it, before anything else."""
    text = page("t", "p {}", "1", [tag("p", "x")])
    assert re.search(
        r"""<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="""
        r""""default-src &#x27;none&#x27;; """
        r"""style-src &#x27;sha256-[A-Za-z0-9+/=]{44}&#x27;; script-src &#x27;sha256-[A-Za-z0-9+/=]{44}&#x27;; """
        r"""base-uri &#x27;none&#x27;; form-action &#x27;none&#x27;">""",
        text,
    )


def test_every_step_says_what_allowed_it() -> None:
    """Delegations included: an auditor asks it of each."""
    told = {step.id: step.allowed for step in steps_of(STORY)}
    assert told["hop_1"] == "allowed by the declaration of https://token.actions.githubusercontent.com, none required"
    assert told["hop_2"] == "allowed by agents-delegate, none required"
    assert told["hop_3"].startswith("allowed by rules that its hop does not name")
    assert told[SESSION.id] == (
        "approved by Alice Adams (alice) at 2026-11-02 09:31:00 UTC; orders-pipeline-opens + prod-open"
    )
    assert told["op_1"] == "allowed by orders-pipeline-works + pii, none required"
    assert told["op_2"] == "blocked by prod-no-ddl"
    assert told["op_3"] == "approved by Alice Adams (alice) at 2026-11-02 09:31:00 UTC; prod-write"
    text = made(STORY).text
    assert all(sentence in text for sentence in told.values())


def test_steps_are_in_time_and_name_the_whole_way() -> None:
    """Who did it is the end of a chain."""
    steps = steps_of(STORY)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert {step.kind for step in steps} == {"run", "delegation", "session", "operation", "answer"}
    (tool,) = [step for step in steps if step.id == "hop_3"]
    assert tool.chain == ("acme/orders main", "deploy-svc", "schema-tool")
    assert {step.id for step in steps if step.telling} >= {"op_2", "op_3", "hop_2"}
    assert "op_1" not in {step.id for step in steps if step.telling}


def test_a_revocation_is_a_step_of_its_own_once() -> None:
    """It ended everything below; it happened once."""
    ended = replace(STORY, hops=(ROOT, replace(DEPLOY, revoked=REVOCATION), replace(TOOL, revoked=REVOCATION), TARGET))
    ended = replace(ended, sessions=(replace(SESSION, revoked=replace(REVOCATION, key="session:x")),))
    assert [step.id for step in steps_of(ended) if step.kind == "revocation"] == ["hop:hop_2", "session:x"]


@pytest.mark.parametrize(
    ("review", "about", "words"),
    [
        (STORY, ABOUT, "VERIFIED"),
        (STORY, replace(ABOUT, anchored=False), "UNANCHORED"),
    ],
)
def test_the_head_says_what_it_is_worth(review: AccessReview, about: About, words: str) -> None:
    """A forged copy's page must not look like one that holds."""
    read = made(review, about=about)
    (badge,) = [text for text in read.texts if text in {"VERIFIED", "NOT VERIFIED", "UNANCHORED"}]
    assert badge == words


def test_what_does_not_verify_is_said_at_the_top_and_at_its_place() -> None:
    """A reader of either sees it."""
    finding = Finding(key="op_3", kind=FindingKind.UNAPPROVED, what="ran without the approvals that it needs")
    unsound = replace(
        STORY,
        findings=(finding,),
        hops=(replace(ROOT, verified=False), *STORY.hops[1:]),
        sessions=(replace(SESSION, recordings=(replace(SESSION.recordings[0], verified=False),)),),
    )
    read = made(unsound, findings=(finding,))
    assert read.texts.count("NOT VERIFIED") >= 4, "head, root, operation, recording"
    assert "NOT VERIFIED" in read.text[: read.text.index("Who initiated it")]
    assert "signed, verified" not in read.text


def test_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of everything would not open; one that leaves out in silence lies."""
    operations = tuple(replace(SELECT, id=f"op_{n}", at=START + timedelta(seconds=n)) for n in range(30))
    many = replace(STORY, sessions=(replace(SESSION, operations=(*operations, DROP)),))
    monkeypatch.setattr(review_page, "MOST_STEPS", 10)
    text = made(many).text
    assert "are left out here" in text
    assert "DROP TABLE orders" in text, "what was stopped is kept"
    monkeypatch.setattr(page_parts, "MOST_LISTED", 1)
    monkeypatch.setattr(review_page, "MOST_LISTED", 1)
    assert "and 1 more, which --json has" in made(many, replace(many, txn="x")).text
    long = replace(SESSION, operations=(replace(SELECT, text="x" * 5000),))
    assert "and 1000 characters more" in made(replace(STORY, sessions=(long,))).text


def test_the_graph_merges_what_looks_alike_and_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A month of runs is one picture; a hop that is its own ancestor draws no endless one."""
    again = replace(
        STORY,
        txn="other",
        hops=tuple(replace(hop, id=f"{hop.id}x", parent=hop.parent and f"{hop.parent}x") for hop in STORY.hops),
        sessions=(replace(SESSION, id="ses_x", leaf_hop="hop_1x"),),
    )
    (svg,) = graph([STORY, again])
    read = Read(svg.text)
    assert sorted(text for text in read.texts if "·" in text) == [
        "attested · 2 hops",
        "attested · 2 hops",
        "target · 2 sessions",
        "vouched · 2 hops",
    ]
    looped = replace(STORY, hops=(replace(ROOT, parent="hop_2"), DEPLOY))
    assert len(list(graph([looped]))) == 1
    monkeypatch.setattr(review_graph, "MOST_ROWS", 1)
    assert "more did not fit" in "".join(part.text for part in graph([STORY]))
    assert list(graph([])) == []


def test_a_verdict_that_nobody_knows_is_red() -> None:
    """Attack: a recording says a verdict of its own; it must not look as if it was let through."""
    strange = replace(STORY, sessions=(replace(SESSION, operations=(replace(SELECT, verdict="fine"),)),))
    (step,) = [step for step in steps_of(strange) if step.kind == "operation"]
    assert (step.verdict, review_graph.colour(step)) == ("fine", "red")


def test_the_line_of_time_holds_for_one_moment_and_for_none() -> None:
    """A chain in which nothing happened has no line."""
    assert list(timeline([])) == []
    (svg,) = timeline(steps_of(STORY)[:1])
    assert "<circle" in svg.text


def test_what_happened_once_stands_before_what_happened_a_thousand_times() -> None:
    """A month of runs: the one that is different must not be looked for among the same sentences."""
    many = [replace(STORY, txn=f"01j9z3k4m5n6p7q8r9s0t1v{number:03d}") for number in range(300)]
    odd = replace(STORY, txn="01j9z3k4m5n6p7q8r9s0t1vzzz", accountable=())
    text = made(*many, odd).text
    unusual = text[text.index("Unusual") : text.index("Who initiated it")]
    assert unusual.index("nobody is known behind this run") < unusual.index("deploy-svc is vouched")
    assert "301 times" in unusual
    assert unusual.count("deploy-svc is vouched") == 1
    initiators = text[text.index("Who initiated it") : text.index("Through whom")]
    assert initiators.index("unknown") < initiators.index("300 chains"), "with nobody known behind it: first"
    assert "and 100 more, which --json has" in initiators


def test_what_is_left_out_is_never_what_does_not_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: fill a month with harmless approvals, so that the one altered statement at its end does not fit."""
    monkeypatch.setattr(review_page, "MOST_STEPS", 5)
    answers = tuple(
        replace(DELETE, id=f"op_{n}", at=START + timedelta(seconds=n), approvals=(APPROVAL,)) for n in range(30)
    )
    last = replace(SELECT, id="op_last", text="SELECT 'altered'", at=START + timedelta(hours=1), recorded=False)
    many = replace(STORY, sessions=(replace(SESSION, operations=(*answers, last)),))
    text = made(many).text
    assert "SELECT 'altered'" in text
    assert "are left out here" in text
