"""targets.yaml, ``retention``: how long a target's recordings are locked, and what is refused."""

from __future__ import annotations

import pytest

from chalicelib.config.targets import MAX_RETENTION_DAYS
from tests.unit.chalicelib.config.bundles import TARGETS, files, load, problems

TAGGED = TARGETS + "    tags: {class: cardholder, team: orders}\n"
BY_TAG = "retention:\n  class=cardholder: 400d\n  team=orders: 90d\n"


@pytest.mark.parametrize(
    ("text", "days"),
    [
        (TARGETS, 0),
        (TARGETS + "    retention: 400d\n", 400),
        (TAGGED + BY_TAG, 400),
        (TAGGED + "    retention: 30d\n" + BY_TAG, 400),
        (TAGGED + "    retention: 2555d\n" + BY_TAG, 2555),
        (TARGETS + f"    retention: {MAX_RETENTION_DAYS}d\n", MAX_RETENTION_DAYS),
    ],
)
def test_the_longest_that_is_asked_for_counts(text: str, days: int) -> None:
    """A target's own shorter word must not undo what its class demands."""
    assert load(files(targets=text)).targets["db"].retention_days == days


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (TARGETS + "    retention: 400\n", 13, "targets.db.retention"),
        (TARGETS + "    retention: 1y\n", 13, "targets.db.retention"),
        (TARGETS + "    retention: 0d\n", 13, "targets.db.retention"),
        (TARGETS + f"    retention: {MAX_RETENTION_DAYS + 1}d\n", 13, "nobody can shorten a lock"),
        (TAGGED + "retention:\n  class=cardholder: 9999d\n", 15, "nobody can shorten a lock"),
        (TAGGED + "retention:\n  class=cardhodler: 400d\n", 15, "no target has the tag class=cardhodler"),
        (TAGGED + "retention:\n  cardholder: 400d\n", 15, "retention"),
    ],
)
def test_what_would_keep_nothing_or_for_ever_is_refused(text: str, line: int, says: str) -> None:
    """A misspelt tag would keep nothing longer, unseen; a typing error would lock terabytes for a century."""
    found = problems(files(targets=text))
    assert found, "it loads"
    assert any(says in problem.message and problem.line == line for problem in found), found
