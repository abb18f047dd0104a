"""What an empty emulator is given before anything else starts: ``python -m dev.preparation``, order in, result out
(JSON).

Rules: it is a process of its own because it alone holds the emulator's root key, which botocore takes from the
environment; nothing that runs later has it. It makes tables, bucket and keys (``provision``), the roles, the secrets,
the bucket's policy, and puts the bundle with the first Activation, which is signed here as it is at a deployment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from boto3.session import Session

from chalicelib.config.files import bundle_digest, encode_bundle
from chalicelib.domain.activation import Activation, bundle_key
from chalicelib.domain.clock import Clock
from chalicelib.domain.secret import Secret
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import sign_activation
from chalicelib.settings import StoreSettings
from chalicelib.store.opened import open_stores
from chalicelib.store.vault import KEPT_KEY
from dev.bucket import guard, places_of
from dev.provision import Provisioned, provision
from dev.roles import Role, make_roles
from dev.settings import SystemClock
from dev.ssh_keys import public_line

AUTHOR: Final = "countersign dev"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to prepare. ``secrets`` go by reference; ``files`` are the bundle's, ``credentials`` the references that its
    targets name: ``mint`` may read those and no other."""

    store: StoreSettings
    account: str
    function_prefix: str
    secrets: Mapping[str, str]
    files: Mapping[str, str]
    credentials: tuple[str, ...]

    def text(self) -> str:
        names = ("prefix", "region", "bucket", "lock_days", "digest_bucket")
        store = {name: getattr(self.store, name) for name in names}
        rest = {"account": self.account, "function_prefix": self.function_prefix, "credentials": self.credentials}
        return json.dumps({**rest, "store": store, "secrets": dict(self.secrets), "files": dict(self.files)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """The roles by name, the streams' ARNs by table, and whose certificates let the broker into ssh targets (``TYPE
    BASE64``)."""

    roles: Mapping[str, Role]
    streams: Mapping[str, str]
    ssh_authority: str


def read_order(text: str) -> Order:
    found = json.loads(text)
    found |= {"store": StoreSettings(**found["store"]), "credentials": tuple(found["credentials"])}
    return Order(**found)


def read_prepared(text: str) -> Prepared:
    """Return what :func:`main` wrote."""
    found = json.loads(text)
    roles = {
        name: Role(
            name=name, access_key=role["access_key"], secret_key=Secret(role["secret_key"]), policy=role["policy"]
        )
        for name, role in found["roles"].items()
    }
    return Prepared(roles=roles, streams=found["streams"], ssh_authority=found["ssh_authority"])


def prepare(order: Order, clock: Clock) -> Prepared:
    """Make everything. Not idempotent: for an empty account."""
    session = Session(region_name=order.store.region)
    made = provision(order.store)
    secrets = session.client("secretsmanager")
    for reference, value in order.secrets.items():
        secrets.create_secret(Name=reference, SecretString=value)
    activate_first(order, clock)
    iam = session.client("iam")
    roles = make_roles(iam, _places(order, made), _aliases(order, made), prefix=order.function_prefix)
    _let_mint_read(iam, order)
    guard(
        session.client("s3"),
        order.store.bucket,
        places_of(
            account=order.account,
            function_prefix=order.function_prefix,
            bucket=order.store.bucket,
            bucket_key=made.bucket_key,
            lock_days=order.store.lock_days,
        ),
    )
    key = session.client("kms").get_public_key(KeyId=made.keys[KeyPurpose.SSH_TARGET.value])
    return Prepared(roles=roles, streams=made.streams, ssh_authority=public_line(key["PublicKey"]))


def _let_mint_read(iam: Any, order: Order) -> None:
    """A bundle may name secrets outside of the deployment's own folder: what an operator would grant for them."""
    if not order.credentials:
        return
    arn = f"arn:aws:secretsmanager:{order.store.region}:{order.account}:secret:"
    allowed = {
        "Effect": "Allow",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": [f"{arn}{reference}{end}" for reference in order.credentials for end in ("", "-??????")],
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(
        UserName=f"{order.function_prefix}mint", PolicyName="credentials-of-this-bundle", PolicyDocument=document
    )


def activate_first(order: Order, clock: Clock) -> None:
    """Put the bundle and the Activation with serial 1."""
    stores = open_stores(order.store, clock=clock)
    files = {name: text.encode() for name, text in order.files.items()}
    found = bundle_digest(files)
    stores.objects.put_new(bundle_key(found), encode_bundle(files), content_type="application/json")
    unsigned = Activation(serial=1, bundle_digest=found, previous_digest="", author=AUTHOR, activated_at=clock.now())
    stores.activations.put(sign_activation(stores.signer(KeyPurpose.ACTIVATION.value), unsigned))


def _places(order: Order, made: Provisioned) -> dict[str, str]:
    keys = {f"{purpose.name}_KEY": made.keys[purpose.value] for purpose in KeyPurpose}
    return {
        "ACCOUNT": order.account,
        "REGION": order.store.region,
        "PREFIX": order.store.prefix,
        "BUCKET": order.store.bucket,
        "DIGEST_BUCKET": order.store.digest_bucket,
        "DATABASE": order.store.prefix.replace("-", "_"),
        "FUNCTION_PREFIX": order.function_prefix,
        "BUCKET_KEY": made.bucket_key,
        "KEPT_KEY": made.kept_key,
        **keys,
    }


def _aliases(order: Order, made: Provisioned) -> dict[str, str]:
    """Return each key's ARN with that of the alias that ``provision`` gave it."""
    arns = {
        purpose: f"{arn.rpartition(':')[0]}:alias/{order.store.prefix}-{purpose}" for purpose, arn in made.keys.items()
    }
    kept = f"{made.kept_key.rpartition(':')[0]}:alias/{order.store.prefix}-{KEPT_KEY}"
    return {made.kept_key: kept, **{made.keys[purpose]: arn for purpose, arn in arns.items()}}


def _as_text(prepared: Prepared) -> str:
    roles: dict[str, Any] = {
        name: {"access_key": role.access_key, "secret_key": role.secret_key.expose(), "policy": role.policy}
        for name, role in prepared.roles.items()
    }
    rest = {"streams": dict(prepared.streams), "ssh_authority": prepared.ssh_authority}
    return json.dumps({"roles": roles, **rest})


def main() -> None:
    sys.stdout.write(_as_text(prepare(read_order(sys.stdin.read()), SystemClock())))


if __name__ == "__main__":
    main()
