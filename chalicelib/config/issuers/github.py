"""``kind: github``: GitHub Actions, GitHub Enterprise Server, or a local issuer of tokens of that shape.

The preset rests on ids, which GitHub never gives to another (``repository_id``, ``repository_owner_id``, ``actor_id``);
never on ``sub``, whose form each organisation may change and which has changed by default. What others outside the
repository can start (pull requests, ``workflow_run``, issue comments) is refused. Who is behind a run is known for what
a person started once: for a schedule, a dispatch through the API, a bot, or a re-run (``actor_id`` stays that of the
first starter), the trigger counts as unknown.

Source: docs.github.com, "OpenID Connect reference" and "Events that trigger workflows".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import Field

from chalicelib.config.issuers.entry import AliasPrefix, Claims, Url, WorkloadIssuer

URL: Final = "https://token.actions.githubusercontent.com"
_RUN: Final = ("run_id", "run_attempt")
_BY_JOB: Final = Claims(
    algorithms=("RS256",),
    many_tenants=True,
    tenant_claims=("repository_owner_id", "repository_id", "enterprise_id"),
    require=(),
    # Each lets an outsider start the run.
    forbid=(("event_name", ("pull_request", "pull_request_target", "workflow_run", "issue_comment")),),
    subject=("repository_owner_id", "repository_id"),
    run=(*_RUN, "check_run_id"),
    display=("repository", "workflow"),
    accountable=(("gh:actor_id", "actor_id"),),
    unknown_trigger=(
        ("event_name", ("schedule", "repository_dispatch")),
        ("actor", ("github-actions[bot]", "dependabot[bot]", "renovate[bot]")),
        # Claims are compared, not counted, so each attempt past the first is written out. GitHub stops long before.
        ("run_attempt", tuple(str(attempt) for attempt in range(2, 1001))),
    ),
    keep=(
        *("repository", "ref", "environment", "event_name", "workflow_ref", "job_workflow_ref", "runner_environment"),
        *("actor", "run_id", "run_attempt", "sha"),
    ),
    ignore=(
        *("actor_id", "base_ref", "check_run_id", "enterprise", "enterprise_id", "environment_node_id", "head_ref"),
        *("issuer_scope", "job_workflow_sha", "ref_protected", "ref_type", "repository_id", "repository_owner"),
        *("repository_owner_id", "repository_visibility", "run_number", "sub", "workflow", "workflow_sha"),
    ),
    # GitHub's sample token: valid 5 minutes after iat; twice that leaves room for a change of theirs and for no more.
    max_lifetime_s=600,
)


class GitHubIssuer(WorkloadIssuer):
    """GitHub Actions, GitHub Enterprise Server, or a local issuer of tokens of that shape."""

    kind: Annotated[Literal["github"], Field(description="github: the preset for GitHub Actions.")]
    url: Annotated[Url, Field(description="The exact iss; absent: github.com's.")] = URL
    jwks_uri: Annotated[
        str, Field(max_length=512, description="Where its keys are; absent: url and /.well-known/jwks.")
    ] = ""
    root: Annotated[
        Literal["job", "run"],
        Field(
            description="What begins a chain: each job (its token must have the claim check_run_id, as github.com's "
            "has), or the run as a whole, for servers that do not name the job."
        ),
    ] = "job"
    alias: Annotated[
        AliasPrefix,
        Field(description="How its users are named in approvers.yaml: gh:actor_id makes gh:actor_id:7. One an issuer."),
    ] = "gh:actor_id"

    def claims(self) -> Claims:
        run = _BY_JOB.run if self.root == "job" else _RUN
        return replace(_BY_JOB, run=run, accountable=((self.alias, "actor_id"),))

    def addresses(self) -> tuple[str, str]:
        return self.url, self.jwks_uri or f"{self.url}/.well-known/jwks"
