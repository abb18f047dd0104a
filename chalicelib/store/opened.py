"""All stores of one deployment, opened together: what composition roots call.

Opening makes no call and no client: a Lambda pays for what it uses. The rights that each store needs, by its name here:
``chains``, ``asks``, ``answers``, ``uses``: GetItem, PutItem, Query · ``sessions``, ``connections``: also UpdateItem;
``connections.unsealed``, ``connections.of_boot``, ``sessions.of_txn``, ``sessions.created_on`` and ``asks.since``:
Query on the table's index · ``sessions.get_many``: BatchGetItem · ``revocations``: GetItem, BatchGetItem, and PutItem
to revoke (a transaction needs the right of each write in it) · ``once``, ``beats``: GetItem, PutItem ·
``activations``: Query, and GetItem, PutItem to activate · ``objects``: GetObject, GetObjectVersion, ListBucket,
PutObject, GetBucketObjectLockConfiguration where ``lock_days`` is not 0, PutObjectRetention to keep for longer ·
``locks``: GetObject, GetObjectRetention, GetObjectLegalHold, GetObjectTagging, PutObjectLegalHold, PutObjectTagging,
GetBucketObjectLockConfiguration · ``keys``: kms:GetPublicKey · ``rows``: BatchGetItem, and Scan
for all keys · ``digest_copies``: as ``objects`` · ``signer``: that and kms:Sign ·
``functions``: InvokeFunction · ``secrets``: GetSecretValue ·
``vault``: kms:GenerateDataKey to seal, kms:Decrypt to open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from chalicelib.domain.clock import Clock
from chalicelib.domain.signature import KeyPurpose
from chalicelib.settings import StoreSettings, SystemClock
from chalicelib.store.activations import DynamoActivations
from chalicelib.store.approvals import DynamoAnswers, DynamoAsks, DynamoUses
from chalicelib.store.beats import DynamoBeats
from chalicelib.store.chains import DynamoChains
from chalicelib.store.clients import Clients
from chalicelib.store.connections import DynamoConnections
from chalicelib.store.dates import ServiceDates
from chalicelib.store.functions import LambdaFunctions
from chalicelib.store.keys import KmsKeys, KmsSigner
from chalicelib.store.locks import S3Locks
from chalicelib.store.objects import S3Objects
from chalicelib.store.once import DynamoOnce
from chalicelib.store.revocations import DynamoRevocations
from chalicelib.store.rows import DynamoRows
from chalicelib.store.secrets import SecretsManager
from chalicelib.store.sessions import DynamoSessions
from chalicelib.store.tables import Tables
from chalicelib.store.vault import KmsVault


@dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """Every store. Thread-safe. ``digest_copies`` is None where no second bucket is named."""

    chains: DynamoChains
    sessions: DynamoSessions
    connections: DynamoConnections
    beats: DynamoBeats
    asks: DynamoAsks
    answers: DynamoAnswers
    uses: DynamoUses
    revocations: DynamoRevocations
    once: DynamoOnce
    activations: DynamoActivations
    rows: DynamoRows
    objects: S3Objects
    locks: S3Locks
    digest_copies: S3Objects | None
    secrets: SecretsManager
    vault: KmsVault
    functions: LambdaFunctions
    keys: KmsKeys
    clients: Clients

    def signer(self, purpose: str) -> KmsSigner:
        """Return the signer of one purpose: token, answer, record or activation. Raises ValueError on another."""
        return KmsSigner(self.clients, self.keys, KeyPurpose(purpose))


def open_stores(settings: StoreSettings, *, function_prefix: str = "", clock: Clock | None = None) -> Stores:
    """Return the stores of the deployment that ``settings`` names.

    ``function_prefix`` is put before each name that ``functions.invoke`` gets; leave it empty where callers give full
    names. Endpoints, credentials and their refresh come from botocore's own chain.
    """
    clock = clock if clock is not None else SystemClock()
    dates = ServiceDates(clock)
    tables = Tables(settings, dates)
    clients = Clients(settings.region, dates)
    return Stores(
        chains=DynamoChains(tables),
        sessions=DynamoSessions(tables),
        connections=DynamoConnections(tables),
        beats=DynamoBeats(tables),
        asks=DynamoAsks(tables),
        answers=DynamoAnswers(tables),
        uses=DynamoUses(tables),
        revocations=DynamoRevocations(tables),
        once=DynamoOnce(tables),
        activations=DynamoActivations(tables),
        rows=DynamoRows(clients, settings),
        objects=S3Objects(clients, settings, clock),
        locks=S3Locks(clients, settings),
        digest_copies=(
            S3Objects(clients, replace(settings, bucket_key="", bucket=settings.digest_bucket), clock)
            if settings.digest_bucket
            else None
        ),
        secrets=SecretsManager(clients),
        vault=KmsVault(clients, settings),
        functions=LambdaFunctions(clients, function_prefix),
        keys=KmsKeys(clients, settings, clock),
        clients=clients,
    )
