"""``kind: gitlab``: GitLab CI/CD, on gitlab.com or on an instance of one's own.

The preset rests on ids (``namespace_id``, ``project_id``, ``user_id``), which an instance never gives to another; never
on ``sub`` or a path, which a project may change or give up. A token must be of a protected branch or tag: whoever may
push to any other branch may write the job that asks for the token. Merge requests' pipelines are refused, since what
they run is what somebody proposes. A token lives as long as its job may, up to days: it is taken for ten minutes.

Who is behind a job is ``user_id``: who started it, or started it again. For a schedule (its owner, who may have left
it years ago) and what another pipeline, a trigger token or a security policy started, the trigger counts as unknown. A
bot's or a project token's user is nobody's alias, and so unknown too.

Source: docs.gitlab.com, "OpenID Connect (OIDC) authentication using ID tokens" and "Predefined CI/CD variables"
(``CI_PIPELINE_SOURCE``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import Field

from chalicelib.config.issuers.entry import AliasPrefix, Claims, Url, WorkloadIssuer

URL: Final = "https://gitlab.com"
MAX_AGE_S: Final = 600  # a job asks for its session when it needs one; what asks later fetches nothing new in GitLab
_CLAIMS: Final = Claims(
    algorithms=("RS256",),
    many_tenants=True,  # an instance of one's own too: it is full of groups, and of people who may make another
    tenant_claims=("namespace_id", "project_id"),
    require=(("ref_protected", ("true",)),),
    forbid=(("pipeline_source", ("merge_request_event", "external_pull_request_event")),),
    subject=("namespace_id", "project_id"),
    run=("pipeline_id", "job_id"),
    display=("project_path", "ref"),
    accountable=(("gl:user_id", "user_id"),),
    unknown_trigger=(
        ("pipeline_source", ("schedule", "trigger", "pipeline", "external", "security_orchestration_policy")),
    ),
    keep=(
        *("project_path", "ref", "ref_path", "ref_type", "ref_protected", "pipeline_source", "environment"),
        *("environment_protected", "deployment_tier", "runner_environment", "user_login", "sha", "pipeline_id"),
        *("job_id", "ci_config_ref_uri"),
    ),
    ignore=(
        *("sub", "namespace_path", "user_email", "user_access_level", "user_identities", "groups_direct"),
        *("environment_action", "runner_id", "ci_config_sha", "project_visibility"),
        *("job_project_id", "job_project_path", "job_namespace_id", "job_namespace_path"),
    ),
    max_lifetime_s=30 * 86_400,  # the longest job timeout that GitLab takes, a month
    max_age_s=MAX_AGE_S,
)


class GitLabIssuer(WorkloadIssuer):
    """GitLab CI/CD."""

    kind: Annotated[Literal["gitlab"], Field(description="gitlab: the preset for GitLab CI/CD.")]
    url: Annotated[Url, Field(description="The exact iss, your instance's address; absent: gitlab.com's.")] = URL
    jwks_uri: Annotated[
        str, Field(max_length=512, description="Where its keys are; absent: url and /oauth/discovery/keys.")
    ] = ""
    protected_refs_only: Annotated[
        bool,
        Field(
            description="True: only protected branches and tags. With false, whoever may push a branch may ask as the "
            "project: then let a team or a policy hold ref_protected."
        ),
    ] = True
    max_age_s: Annotated[
        int,
        Field(
            ge=60,
            le=86_400,
            description="How long after it was issued a token is taken, 60 to 86400 seconds: a job's token is made as "
            "it starts.",
        ),
    ] = MAX_AGE_S
    alias: Annotated[
        AliasPrefix,
        Field(description="How its users are named in approvers.yaml: gl:user_id makes gl:user_id:7. One an issuer."),
    ] = "gl:user_id"

    def claims(self) -> Claims:
        return replace(
            _CLAIMS,
            require=_CLAIMS.require if self.protected_refs_only else (),
            accountable=((self.alias, "user_id"),),
            max_age_s=self.max_age_s,
        )

    def addresses(self) -> tuple[str, str]:
        return self.url, self.jwks_uri or f"{self.url}/oauth/discovery/keys"
