"""What alarms rest on is made: every log metric by a line that our code writes, every alarm by a metric that exists."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from broker.logs import METRICS, SESSIONS
from chalicelib.domain.audit import AuditName
from chalicelib.domain.recording import BROKER_LOST
from chalicelib.services.sweep import Swept

ROOT: Final = Path(__file__).resolve().parents[2]
LOG_METRICS: Final[dict[str, dict[str, str]]] = json.loads((ROOT / "infra/alarms/log_metrics.json").read_text())
ALARMS: Final[dict[str, dict[str, Any]]] = json.loads((ROOT / "infra/alarms/alarms.json").read_text())
FUNCTIONS: Final = {path.stem for path in (ROOT / ".chalice/policies").glob("*.json")}
# AWS's own: from its list of metrics of each service.
OF_AWS: Final = {
    ("AWS/Lambda", "Errors"),
    ("AWS/Lambda", "Throttles"),
    ("AWS/Lambda", "Duration"),
    ("AWS/Lambda", "IteratorAge"),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
    ("AWS/NetworkELB", "HealthyHostCount"),
    ("AWS/ECS", "CPUUtilization"),
    ("AWS/WAFV2", "BlockedRequests"),
}
_TERM: Final = re.compile(r'\$\.([a-z_.]+) (=|>=) ("[^"]*"|[0-9]+)')
_CODES: Final = {BROKER_LOST, "bad_request"}


def written() -> Iterator[tuple[str, frozenset[str]]]:
    """Yield every log line of the code: its text, and the fields beside it that are named there."""
    for path in [ROOT / "app.py", *(ROOT / "broker").rglob("*.py"), *(ROOT / "chalicelib").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=logger, attr="info" | "warning" | "error" | "exception"),
                    args=[ast.Constant(value=str(text)), *_],
                ) if "log" in ast.unparse(logger):
                    extra = next((word.value for word in node.keywords if word.arg == "extra"), None)
                    named = extra.keys if isinstance(extra, ast.Dict) else []
                    yield text, frozenset(str(key.value) for key in named if isinstance(key, ast.Constant))


LINES: Final = tuple(written())
TOLD: Final = {
    name
    for path in [*(ROOT / "broker").rglob("*.py"), *(ROOT / "chalicelib").rglob("*.py")]
    if path.name != "audit.py"
    for name in re.findall(r"AuditName\.([A-Z_]+)", path.read_text())
}


def fields_beside(text: str) -> set[str]:
    found = {field for line, fields in LINES if line == text for field in fields}
    return found | (set(Swept().told()) if text == "swept" else set())


@pytest.mark.parametrize("name", sorted(LOG_METRICS))
def test_a_log_metric_counts_a_line_that_the_code_writes(name: str) -> None:
    """A renamed message or event would make its alarm silent for ever, and nobody would see that."""
    metric = LOG_METRICS[name]
    assert metric["group"] in FUNCTIONS | {"broker"}
    terms = {field: json.loads(value) for field, _, value in _TERM.findall(metric["pattern"])}
    assert terms
    assert _TERM.sub("", metric["pattern"]).replace("(", "").replace(")", "").replace("&&", "").split() == ["{", "}"]
    if "audit.name" in terms:
        assert AuditName(terms["audit.name"]).name in TOLD
        assert set(terms) <= {"audit.name", "audit.code"}
        assert terms.get("audit.code", BROKER_LOST) in _CODES
    else:
        fields = set(terms) - {"message"} | ({metric["value"].removeprefix("$.")} if "value" in metric else set())
        assert terms["message"] in {text for text, _ in LINES}
        assert fields <= fields_beside(terms["message"])


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_an_alarm_looks_at_a_metric_that_is_there_and_says_what_to_do(name: str) -> None:
    """An alarm on a metric that nobody makes is a green light over nothing."""
    alarm = ALARMS[name]
    if alarm["namespace"] == "Countersign/{name}":
        assert alarm["metric"] in LOG_METRICS
        assert alarm["dimensions"] == {}
    else:
        assert (alarm["namespace"], alarm["metric"]) in OF_AWS
    assert alarm["question"] in {"recording", "deciding", "unsealed", "guarded"}
    assert alarm["means"].endswith(".")
    assert alarm["do"]
    for path in re.findall(r"docs/[a-z/-]+\.md", alarm["do"]):
        assert (ROOT / path).is_file()
    # What must happen again and again is missed by its absence.
    assert (alarm["missing"] == "breaching") == (alarm["comparison"] == "LessThanThreshold")
    # CloudWatch evaluates a day at most.
    assert alarm["period_s"] * alarm["periods"] <= 86400


def test_a_functions_own_alarm_names_a_function_that_there_is() -> None:
    """A function that is renamed must not take its alarm's place away with it."""
    for alarm in ALARMS.values():
        told = alarm["dimensions"].get("FunctionName", "{each}")
        assert told == "{each}" or told.removeprefix("{name}-") in FUNCTIONS


def test_scaling_goes_by_the_metric_that_the_broker_tells() -> None:
    """Named otherwise there, the service would never grow; and without a name of its own, two stages would be one."""
    scaling = (ROOT / "infra/modules/broker/scaling.tf").read_text()
    assert f'namespace   = "{METRICS}"' in scaling
    assert f'metric_name = "{SESSIONS}"' in scaling
    assert re.findall(r'name  = "(\w+)"\n +value = (\S+)', scaling) == [("Service", '"broker"'), ("Name", "var.name")]


def test_every_alarm_is_in_the_document() -> None:
    """Whoever is woken looks for the alarm's name."""
    told = (ROOT / "docs/alarms.md").read_text()
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", told, re.MULTILINE))
    assert rows == set(ALARMS)
    for name, alarm in ALARMS.items():
        assert f"| `{name}` | {alarm['means']} | {alarm['do']} |" in told
