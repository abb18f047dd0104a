"""Makes the language of a new connection: its catalogue is the shared one, or is asked for on the connection itself."""

from __future__ import annotations

from broker.engines.flow import Connection
from broker.engines.postgres.catalogues import Catalogues, Known
from broker.engines.postgres.language import Configuration, SqlLanguage
from broker.engines.postgres.origins import Masked, catalogue_queries, read_catalogue
from broker.engines.postgres.upstream import Upstream, ask
from chalicelib.domain.clock import Clock


class SqlLanguages:
    """One for all PostgreSQL connections of a loop."""

    def __init__(self, *, configuration: Configuration, clock: Clock) -> None:
        self._configuration = configuration
        self._clock = clock
        self._catalogues = Catalogues(clock)

    async def of(self, connection: Connection, target: Upstream) -> SqlLanguage:
        """Return the language of ``connection``, whose target is logged in and idle. Raises AccessError."""
        name, login = connection.admission.target.name, connection.credential.login
        masked = Masked.of(self._configuration.current().masks.values(), name)
        known = self._catalogues.shared(name, login, masked)
        if known is None:
            asked_s = self._clock.monotonic_s()
            results = [await ask(target, text) for text in catalogue_queries(masked)]
            known = Known(read_catalogue(results, masked), asked_s)
            self._catalogues.share(name, login, known)
        return SqlLanguage(
            target=name,
            login=login,
            known=known,
            configuration=self._configuration,
            catalogues=self._catalogues,
            clock=self._clock,
        )
