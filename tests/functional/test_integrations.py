"""The templates for pipelines: valid by their services' own schemas, and run as a runner of that service would."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pygments.lexers.jvm import GroovyLexer
from pygments.token import Token

from chalicelib.api.slack_events import EVENTS
from dev.issuer import Issuer
from dev.settings import SystemClock
from tests.fakes.api_server import CA_PEM, ID_TOKEN, SECRET, SESSION, ApiServer
from tests.functional.runners import (
    FOLDER,
    ROOT,
    GithubRunner,
    Machine,
    buildkite_step,
    circleci_command,
    gitlab_job,
    jenkins_lines,
    jenkins_stage,
)

BIN = Path(sys.prefix) / "bin"
SCHEMAS = {
    "github/action.yml": "github-actions",
    "github/migrate.yml": "github-workflows",
    "gitlab/countersign.yml": "gitlab-ci",
    "gitlab/migrate.yml": "gitlab-ci",
    "circleci/orb.yml": "circle-ci",
    "buildkite/pipeline.yml": "buildkite",
}
MIGRATION = ["-v", "ON_ERROR_STOP=1", "-f", "migrations/42.sql"]


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, api: ApiServer) -> Machine:
    return Machine(tmp_path, api=api.url)


@pytest.fixture
def github(machine: Machine, tmp_path: Path, api: ApiServer) -> Iterator[GithubRunner]:
    issuer = Issuer(SystemClock(), audience=api.url)
    issuer.start()
    machine.program("python3")
    yield GithubRunner(machine, tmp_path, token_url=issuer.runner_url())
    issuer.stop()


def reached(machine: Machine, api: ApiServer, arguments: list[str]) -> dict[str, str]:
    """Return the variables of the one psql that ran, after the checks that every service's job must pass."""
    ((given, variables),) = machine.calls("psql")
    assert given == arguments
    assert (variables["PGUSER"], variables["PGPASSWORD"], variables["PGSSLMODE"]) == (SESSION, SECRET, "verify-full")
    assert api.closed
    return variables


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_template_is_what_its_service_takes(name: str) -> None:
    """A misspelt key is no error at most services: the step runs without it."""
    done = subprocess.run(
        [str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{SCHEMAS[name]}", str(FOLDER / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_template_is_checked_by_something() -> None:
    """A new file is somebody's pipeline tomorrow: it gets a linter, or is named here with the reason."""
    other = {"buildkite/hooks/pre-command", "jenkins/Jenkinsfile", "slack/manifest.json"}
    cluster = {"kubernetes/agent.yml", "kubernetes/migrate.yml"}  # read by tests/unit/countersign/test_integrations.py
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert found == {*SCHEMAS, *other, *cluster}


def scripts() -> dict[str, str]:
    """Return every piece of shell in the templates, by where it stands."""
    hook = FOLDER / "buildkite/hooks/pre-command"
    found = {"hook": hook.read_text()}
    action = yaml.safe_load((FOLDER / "github/action.yml").read_text())
    found |= {f"action {number}": step["run"] for number, step in enumerate(action["runs"]["steps"])}
    for name in ("gitlab/countersign.yml", "gitlab/migrate.yml"):
        for job in yaml.safe_load((FOLDER / name).read_text()).values():
            found[name] = "\n".join([*job["before_script"], *job["script"]])
    for step in yaml.safe_load((FOLDER / "circleci/orb.yml").read_text())["commands"]["exec"]["steps"]:
        found["orb"] = step["run"]["command"]
    for step in yaml.safe_load((FOLDER / "buildkite/pipeline.yml").read_text())["steps"]:
        found["buildkite"] = "\n".join(step["commands"])
    found["jenkins"] = "\n".join(jenkins_lines((FOLDER / "jenkins/Jenkinsfile").read_text()))
    return found


def test_the_shell_in_the_templates_has_no_fault_that_shellcheck_knows(tmp_path: Path) -> None:
    """An unquoted name in a template is a command injection in everybody's pipeline."""
    files = []
    for name, script in scripts().items():
        assert script.strip(), name
        file = tmp_path / re.sub(r"\W", "_", name)
        file.write_text(script)
        files.append(str(file))
    # SC2154: a variable that the service sets. SC2015: two installs, of which either may fail.
    command = [str(BIN / "shellcheck"), "--shell=bash", "--enable=quote-safe-variables", "--exclude=SC2154,SC2015"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_no_input_becomes_the_text_of_a_script() -> None:
    """Attack: `run: ${{ inputs.reason }}` runs what somebody wrote into a pull request's title."""
    action = yaml.safe_load((FOLDER / "github/action.yml").read_text())
    assert not [step for step in action["runs"]["steps"] if "${{" in step["run"]]
    orb = yaml.safe_load((FOLDER / "circleci/orb.yml").read_text())["commands"]["exec"]
    assert not [step for step in orb["steps"] if "<<" in step["run"]["command"]]


def test_the_jenkinsfile_is_groovy() -> None:
    """No parser of it is at hand without a JVM: its words and its brackets are what is checked."""
    text = (FOLDER / "jenkins/Jenkinsfile").read_text()
    tokens = list(GroovyLexer().get_tokens(text))
    assert not [value for kind, value in tokens if kind is Token.Error]
    code = "".join(value for kind, value in tokens if kind not in Token.Comment and kind not in Token.Literal.String)
    for opening, closing in ("{}", "()", "[]"):
        assert code.count(opening) == code.count(closing) > 0


def test_the_github_action(github: GithubRunner, machine: Machine, api: ApiServer) -> None:
    """As a step runs it: the runner's token, masked, told in the summary, with outputs for the next step."""
    inputs = {"api": api.url, "target": "orders-prod", "reason": "migration 42", "run": "psql -c 'SELECT 1' | cat"}
    ended = github.use({**inputs, "duration": "15m"})
    assert ended.code == 0, ended.err
    assert f"::add-mask::{SECRET}" in ended.err
    variables = reached(machine, api, ["-c", "SELECT 1"])
    assert not [name for name in variables if name.startswith("ACTIONS_ID_TOKEN")]
    (asked,) = api.calls("POST /v1/sessions")
    assert json.loads(asked.body) == {"target": "orders-prod", "reason": "migration 42", "duration_s": 900}
    assert f"session={SESSION}\n" in github.output.read_text()
    assert SESSION in github.summary.read_text()
    ((installed, _),) = machine.calls("python3")
    assert installed[-1] == "countersign"


def test_the_github_actions_command_fails_the_step(github: GithubRunner, machine: Machine, api: ApiServer) -> None:
    """A migration whose first half failed is no green check: pipes and lines alike."""
    machine.program("psql", "sys.exit(3)")
    inputs = {"api": api.url, "target": "orders-prod", "reason": "r", "run": "psql -c 1 | cat\necho done"}
    assert github.use(inputs).code == 3


def test_a_denial_in_the_github_action(github: GithubRunner, machine: Machine, api: ApiServer) -> None:
    """The run's page says who denied it; nothing ran."""
    api.refuse = (403, "denied_by_policy", "no rule permits it", "Ask the owners.")
    ended = github.use({"api": api.url, "target": "orders-prod", "reason": "r", "run": "psql"})
    assert ended.code == 77
    assert "::error title=Access denied::no rule permits it" in ended.err
    assert machine.calls("psql") == []


@pytest.mark.parametrize(
    "hostile",
    ['"; touch pwned; "', "$(touch pwned)", "`touch pwned`", "--session=x\ntouch pwned"],
    ids=["quote", "dollar", "backtick", "option and line"],
)
def test_hostile_inputs_run_nothing(github: GithubRunner, machine: Machine, api: ApiServer, hostile: str) -> None:
    """Attack: a reason, a target or a duration that a stranger could choose is a command in the runner's shell."""
    for name in ("target", "reason", "duration", "principal", "wait", "install"):
        inputs = {"api": api.url, "target": "orders-prod", "reason": "r", "run": "psql"}
        github.use({**inputs, name: hostile})
    assert not (machine.home / "pwned").exists()


@pytest.mark.parametrize("template", ["gitlab/migrate.yml", "gitlab/countersign.yml"])
def test_the_gitlab_jobs(machine: Machine, api: ApiServer, template: str) -> None:
    """As the runner runs them: the token that `id_tokens` names, and what the job's image installs."""
    job = "migrate" if "migrate" in template else ".countersign"
    stated = {"COUNTERSIGN_API": api.url, "TARGET": "orders-prod", "REASON": "m", "MIGRATION": "migrations/42.sql"}
    ended = gitlab_job(machine, template, job, token=ID_TOKEN, variables=stated)
    assert ended.code == 0, ended.err
    assert "COUNTERSIGN_ID_TOKEN" not in reached(machine, api, MIGRATION)
    assert SECRET not in ended.out + ended.err


def test_the_circleci_command(machine: Machine, api: ApiServer) -> None:
    """It asks for a token that is meant for us: the job's own names another audience, and would be refused."""
    machine.program("circleci", f"print({ID_TOKEN!r})")
    given = {"api": api.url, "target": "orders-prod", "reason": "migration 42", "run": "psql -c 1"}
    ended = circleci_command(machine, given)
    assert ended.code == 0, ended.err
    ((asked, _),) = machine.calls("circleci")
    assert asked[:4] == ["run", "oidc", "get", "--claims"]
    assert json.loads(asked[4]) == {"aud": api.url}
    reached(machine, api, ["-c", "1"])


def test_the_buildkite_hook(machine: Machine, api: ApiServer) -> None:
    """The hook's token reaches the step; the agent's own token does not reach what the step runs."""
    machine.program("buildkite-agent", f"print({ID_TOKEN!r})")
    ended = buildkite_step(machine)
    assert ended.code == 0, ended.err
    ((asked, _),) = machine.calls("buildkite-agent")
    assert asked == ["oidc", "request-token", "--audience", api.url, "--lifetime", "300"]
    assert "BUILDKITE_AGENT_ACCESS_TOKEN" not in reached(machine, api, MIGRATION)


def test_a_hook_that_gets_no_token_stops_the_step(machine: Machine, api: ApiServer) -> None:
    """A step that goes on without a token fails later, with a message about something else."""
    machine.program("buildkite-agent", "sys.exit(1)")
    assert buildkite_step(machine).code != 0
    assert machine.calls("pip") == [], "the step began"
    assert api.seen == []


def test_the_jenkins_stage(machine: Machine, api: ApiServer) -> None:
    """`sh -x` writes each command into the log: no secret is in one."""
    ended = jenkins_stage(machine, token=ID_TOKEN)
    assert ended.code == 0, ended.err
    reached(machine, api, MIGRATION)
    assert "countersign exec orders-prod" in ended.err
    assert not {SECRET, ID_TOKEN, CA_PEM} & set(ended.err.split())


def test_the_slack_app_may_do_what_our_code_calls_and_no_more() -> None:
    """A scope that is missing fails at the first card; one too many is a bot that reads everybody's channels."""
    needs = {"chat_postMessage": "chat:write", "chat_update": "chat:write"}  # docs.slack.dev/reference/methods
    methods: set[str] = set()
    for path in (ROOT / "chalicelib/slack").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.match(r"[a-z]+_[a-zA-Z_]+\Z", node.attr):
                called: Any = node.value
                if isinstance(called, ast.Call) and getattr(called.func, "attr", "") == "_web":
                    methods.add(node.attr)
    manifest = json.loads((FOLDER / "slack/manifest.json").read_text())
    assert {needs[method] for method in methods} == set(manifest["oauth_config"]["scopes"]["bot"])
    interactivity = manifest["settings"]["interactivity"]
    assert interactivity["is_enabled"]
    assert interactivity["request_url"] == f"https://COUNTERSIGN.EXAMPLE.COM{EVENTS.path}"
    assert "event_subscriptions" not in manifest["settings"]  # we take clicks, and no events
