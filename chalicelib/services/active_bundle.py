"""The active configuration of a deployment, as every process reads it: signed activations, our policy compiler.

What it does not do: decide when to read again or for how long an old bundle stands (``chalicelib.config.active``).
"""

from __future__ import annotations

from functools import partial

from chalicelib.config.active import ActiveBundle
from chalicelib.domain.clock import Clock
from chalicelib.domain.store import Stores
from chalicelib.identity.jws import verify_activation
from chalicelib.policy.engine import compile_policy


def active_bundle(stores: Stores, clock: Clock) -> ActiveBundle:
    """Return the bundles of ``stores``, none read yet: each activation's signature is verified when it is."""
    return ActiveBundle(
        activations=stores.activations,
        objects=stores.objects,
        verify=partial(verify_activation, keys=stores.keys),
        compile_policy=compile_policy,
        clock=clock,
    )
