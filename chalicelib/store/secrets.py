"""The secret store. Nothing is kept between calls: a rotated secret is the one that the next connection gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.store.clients import Clients, calling

_CURRENT: Final = "AWSCURRENT"
_PENDING: Final = "AWSPENDING"


class SecretsManager:
    """Implements ``domain.store.Secrets``. A reference is a secret's name or ARN."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def get(self, reference: str) -> Secret:
        with calling("secretsmanager", _absent(reference)):
            answer = self._clients.secrets().get_secret_value(SecretId=reference)
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise StoreUnavailable("a secret is not text", reference=reference)
        return Secret(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretVersion:
    """One version of a secret: its ``id``, by which it is promoted, and its value."""

    id: str
    value: Secret


class SecretVersions:
    """Changes a secret in two steps, so that a process that dies between them has lost no value: the new one waits
    under ``AWSPENDING`` until it is promoted. Nothing that serves requests has the right to either.

    Rights: secretsmanager:GetSecretValue, PutSecretValue, UpdateSecretVersionStage. Source: AWS Secrets Manager user
    guide, "Rotation function" (the labels AWSCURRENT, AWSPENDING, AWSPREVIOUS).
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def current(self, reference: str) -> SecretVersion:
        """Return the version that the next connection gets. Raises NotFound, StoreUnavailable."""
        found = self._labelled(reference, _CURRENT)
        if found is None:
            raise NotFound("there is no such secret", reference=reference)
        return found

    def pending(self, reference: str) -> SecretVersion | None:
        """Return what was proposed and never promoted, or None. Raises StoreUnavailable."""
        return self._labelled(reference, _PENDING)

    def propose(self, reference: str, value: Secret) -> SecretVersion:
        """Put ``value`` beside the current one, in the place of what was proposed before. Raises NotFound,
        StoreUnavailable."""
        with calling("secretsmanager", _absent(reference)):
            answer = self._clients.secrets().put_secret_value(
                SecretId=reference, SecretString=value.expose(), VersionStages=[_PENDING]
            )
        return SecretVersion(id=str(answer["VersionId"]), value=value)

    def promote(self, reference: str, version: SecretVersion, before: SecretVersion) -> None:
        """Make ``version`` the current one; refused by the store where ``before`` is not current any more. Raises
        StoreUnavailable."""
        client = self._clients.secrets()
        with calling("secretsmanager"):
            client.update_secret_version_stage(
                SecretId=reference, VersionStage=_CURRENT, MoveToVersionId=version.id, RemoveFromVersionId=before.id
            )
        waiting = self.pending(reference)
        if waiting is not None and waiting.id == version.id:  # a label that stays makes AWS's own rotation wait
            with calling("secretsmanager"):
                client.update_secret_version_stage(
                    SecretId=reference, VersionStage=_PENDING, RemoveFromVersionId=version.id
                )

    def _labelled(self, reference: str, label: str) -> SecretVersion | None:
        try:
            with calling("secretsmanager", _absent(reference)):
                answer = self._clients.secrets().get_secret_value(SecretId=reference, VersionStage=label)
        except NotFound:
            return None
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise StoreUnavailable("a secret is not text", reference=reference)
        return SecretVersion(id=str(answer["VersionId"]), value=Secret(value))


def _absent(reference: str) -> Callable[[str], Exception | None]:
    absent = NotFound("there is no such secret", reference=reference)
    return lambda code: absent if code == "ResourceNotFoundException" else None
