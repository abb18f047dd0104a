"""The settings of the command line: read from the environment once per process, here and nowhere else in it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from chalicelib.domain.secret import Secret

# What lets a process speak as this job: never handed to what we start. The list names variables of the CI services
# themselves; a variable that a GitLab job file names freely is COUNTERSIGN_ID_TOKEN by our documentation.
CI_TOKEN_VARIABLES: Final = (
    "COUNTERSIGN_ID_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "CI_JOB_JWT",
    "CI_JOB_JWT_V1",
    "CI_JOB_JWT_V2",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "SYSTEM_ACCESSTOKEN",
)
# With these a process does what the job may do at the CI service itself.
CI_CREDENTIALS: Final = (
    *CI_TOKEN_VARIABLES,
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "CI_JOB_TOKEN",
    "CI_DEPLOY_PASSWORD",
    "CI_REGISTRY_PASSWORD",
    "CI_DEPENDENCY_PROXY_PASSWORD",
    "CI_REPOSITORY_URL",  # GitLab's holds the job's token
    "ACTIONS_CACHE_URL",
    "ACTIONS_RESULTS_URL",
)
# Ours, by which a process speaks as the hop that it is: a ticket, a token file, the file with the key and the token.
OWN_IDENTITY_VARIABLES: Final = ("COUNTERSIGN_IDENTITY", "COUNTERSIGN_TICKET", "COUNTERSIGN_ACTOR_TOKEN_FILE")


class SystemClock:
    """The real time, and the real waiting."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the command line is told.

    ``api`` is empty where nobody said it. ``github_url`` and ``github_token`` are how a GitHub Actions job asks its
    runner for an OIDC token; ``github_env`` is the file through which a step sets variables for later steps,
    ``github_output`` that of its outputs, ``github_summary`` what people read of it; ``in_github``: a runner of GitHub
    Actions reads what we print.
    ``identity`` is the path of the identity file, ``state`` the folder where such files are kept where it names none
    (both empty where nobody said it), ``ticket`` the delegation ticket that a parent handed over, ``actor_token_file``
    where a projected token is found. ``in_ci``: a CI service runs us. ``inherited`` is the whole environment, to be
    handed on after ``countersign.environment`` cleaned it.
    """

    api: str
    id_token: Secret | None
    github_url: str
    github_token: Secret | None
    github_env: str
    github_output: str
    github_summary: str
    in_github: bool
    runner_temp: str
    identity: str
    state: str
    ticket: Secret | None
    actor_token_file: str
    in_ci: bool
    colour: bool
    inherited: Mapping[str, str] = field(repr=False)


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that ``environment``, else the process's own, holds. Missing ones are empty: each command
    says itself what it lacks."""
    env = os.environ if environment is None else environment
    return Settings(
        api=env.get("COUNTERSIGN_API", ""),
        id_token=_secret(env, "COUNTERSIGN_ID_TOKEN"),
        github_url=env.get("ACTIONS_ID_TOKEN_REQUEST_URL", ""),
        github_token=_secret(env, "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        github_env=env.get("GITHUB_ENV", ""),
        github_output=env.get("GITHUB_OUTPUT", ""),
        github_summary=env.get("GITHUB_STEP_SUMMARY", ""),
        in_github=env.get("GITHUB_ACTIONS", "") == "true",
        runner_temp=env.get("RUNNER_TEMP", ""),
        identity=env.get("COUNTERSIGN_IDENTITY", ""),
        state=_state(env),
        ticket=_secret(env, "COUNTERSIGN_TICKET"),
        actor_token_file=env.get("COUNTERSIGN_ACTOR_TOKEN_FILE", ""),
        in_ci=env.get("CI", "") not in {"", "0", "false"},
        colour=not env.get("NO_COLOR") and env.get("TERM", "") not in {"", "dumb"},
        inherited=MappingProxyType(dict(env)),
    )


def _state(env: Mapping[str, str]) -> str:
    """Return our folder for what outlives a process; empty where there is none. Source: XDG Base Directory
    Specification 0.8, which also says that a path that is not absolute is to be ignored."""
    base = env.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):
        return os.path.join(base, "countersign")
    home = env.get("HOME", "")
    return os.path.join(home, ".local", "state", "countersign") if os.path.isabs(home) else ""


def _secret(env: Mapping[str, str], name: str) -> Secret | None:
    value = env.get(name, "").strip()
    return Secret(value) if value else None
