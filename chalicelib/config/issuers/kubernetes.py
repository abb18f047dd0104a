"""``kind: kubernetes``: one cluster's service accounts, by the tokens that it projects into pods.

A declaration is one cluster's: its exact issuer and its own keys. Clusters that were left with the default issuer all
have the same one, and are told apart by their keys alone, so that two of them cannot be declared; give each its own
(``--service-account-issuer``). The preset rests on uids: a name of a namespace, a service account or a pod may be
given again after it was deleted. The run is the pod, and a token that is bound to none is refused: it was made by
whoever may ask the API server for one (``kubectl create token``), from anywhere. The API server's own audiences are
refused too: such a token lies in nearly every pod, and whoever it is shown to could be the pod towards the cluster.

Nobody is accountable for a pod: who created it is not in its token. The trigger is always unknown.

Source: kubernetes.io, "Managing Service Accounts" (bound tokens, schema of the private claims) and "Configure Service
Accounts for Pods" (projection, issuer discovery); KEP-1205 and KEP-4193.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import Field

from chalicelib.config.document import Path
from chalicelib.config.issuers.entry import Claims, Url, WorkloadIssuer
from chalicelib.config.model import Finding

LIFETIME_S: Final = 3607  # an hour is what pods ask for by default; for the default mount kubelet adds seven seconds
_API_SERVER: Final = "kubernetes.default"  # of the names under which every cluster's API server knows itself
_NAMESPACE: Final = "kubernetes.io/namespace"
_ACCOUNT_UID: Final = "kubernetes.io/serviceaccount/uid"
_CLAIMS: Final = Claims(
    algorithms=("RS256", "ES256"),
    many_tenants=False,  # its issuer vouches for one cluster, which is yours; require says which of its namespaces
    tenant_claims=(),
    require=(),
    forbid=(),
    subject=(_NAMESPACE, _ACCOUNT_UID),
    run=("kubernetes.io/pod/uid",),
    display=("kubernetes.io/namespace", "kubernetes.io/serviceaccount/name"),
    accountable=(),
    unknown_trigger=(),
    keep=(
        *("kubernetes.io/namespace", "kubernetes.io/serviceaccount/name", "kubernetes.io/pod/name"),
        "kubernetes.io/node/name",
    ),
    ignore=("sub", "kubernetes.io/node/uid", "kubernetes.io/warnafter"),
    max_lifetime_s=LIFETIME_S,
)
_KNOWN: Final = frozenset((*_CLAIMS.subject, *_CLAIMS.run, *_CLAIMS.display, *_CLAIMS.keep, *_CLAIMS.ignore))


class KubernetesIssuer(WorkloadIssuer):
    """A Kubernetes cluster's service accounts."""

    kind: Annotated[Literal["kubernetes"], Field(description="kubernetes: the preset for one cluster's pods.")]
    url: Annotated[
        Url,
        Field(description="The cluster's exact iss: kubectl get --raw /.well-known/openid-configuration shows it."),
    ]
    jwks_uri: Annotated[
        str, Field(max_length=512, description="Where the cluster's keys are; absent: url and /openid/v1/jwks.")
    ] = ""
    max_lifetime_s: Annotated[
        int,
        Field(
            ge=600,
            le=86_400,
            description="The longest accepted exp - iat, 600 to 86400 seconds: no less than the pods' "
            "expirationSeconds.",
        ),
    ] = LIFETIME_S

    def claims(self) -> Claims:
        return replace(_CLAIMS, max_lifetime_s=self.max_lifetime_s)

    def addresses(self) -> tuple[str, str]:
        return self.url, self.jwks_uri or f"{self.url}/openid/v1/jwks"

    def findings(self, path: Path) -> Iterator[Finding]:
        """Yield what would take any pod's token for the API server as one for us, claims that no such token has, and
        teams that whoever has a namespace of the cluster joins by naming a service account so."""
        yield from self._unknown_claims(path)
        one_namespace = any(len(names) == 1 for claim, names in self.require.items() if claim == _NAMESPACE)
        for number, entry in enumerate(self.teams):
            if not one_namespace and not {_NAMESPACE, _ACCOUNT_UID} & set(entry.when):
                yield Finding(
                    path=(*path, "teams", number, "when"),
                    message=f"the team {entry.team} takes a service account of that name in any namespace",
                    remedy=f"Add {_NAMESPACE} or {_ACCOUNT_UID} to when, or require one namespace.",
                )
        host = self.audience.removeprefix("https://").partition("/")[0].partition(":")[0]
        if self.audience == self.url or host == _API_SERVER or host.startswith(f"{_API_SERVER}."):
            yield Finding(
                path=(*path, "audience"),
                message=f"the audience {self.audience!r} is the API server's own, which tokens in every pod have",
                remedy="Use your API's own origin, and the same as the audience of the pods' projected token.",
            )

    def _unknown_claims(self, path: Path) -> Iterator[Finding]:
        """Yield names that are misspelt: a team that nobody is in makes a ``forbid`` that never applies."""
        places: list[tuple[Path, str]] = [((*path, key), key) for key in ("require", "forbid")]
        named = [(place, claim) for place, key in places for claim in getattr(self, key)]
        for number, entry in enumerate(self.teams):
            named += [((*path, "teams", number, "when"), claim) for claim in entry.when]
        for place, claim in named:
            if claim not in _KNOWN:
                yield Finding(
                    path=(*place, claim),
                    message=f"no projected token has the claim {claim!r}, so this never holds",
                    remedy=f"Name one of: {', '.join(sorted(_KNOWN))}.",
                )
