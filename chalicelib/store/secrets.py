"""The secret store. Nothing is kept between calls: a rotated secret is the one that the next connection gets."""

from __future__ import annotations

from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.store.clients import Clients, calling


class SecretsManager:
    """Implements ``domain.store.Secrets``. A reference is a secret's name or ARN."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def get(self, reference: str) -> Secret:
        absent = NotFound("there is no such secret", reference=reference)
        with calling("secretsmanager", lambda code: absent if code == "ResourceNotFoundException" else None):
            answer = self._clients.secrets().get_secret_value(SecretId=reference)
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise StoreUnavailable("a secret is not text", reference=reference)
        return Secret(value)
