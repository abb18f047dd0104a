"""What AWS says runs: packages by their hash, images by the digest that was pulled; botocore checks the shapes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from boto3.session import Session
from botocore.stub import Stubber

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.store import deployed
from chalicelib.store.clients import Clients
from chalicelib.store.deployed import DeployedCode

HASH = "yoqgXJ3G1ROsFXLUfkxIKHbCiKf2eKCiIkxoktNUoNE="
CLUSTER = "countersign-brokers"
TASK = "arn:aws:ecs:eu-west-1:111122223333:task/countersign-brokers/"
DEFINITION = "arn:aws:ecs:eu-west-1:111122223333:task-definition/broker:7"


class Stubs:
    """Stands for ``Clients``: botocore's own clients, whose answers are given and checked against AWS's models."""

    def __init__(self) -> None:
        session = Session("AKIATEST", "secret", region_name="eu-west-1")
        self._clients = {name: session.client(name) for name in ("lambda", "ecs")}
        self.stubs = {name: Stubber(client) for name, client in self._clients.items()}
        for stub in self.stubs.values():
            stub.activate()

    def functions(self) -> Any:
        return self._clients["lambda"]

    def tasks(self) -> Any:
        return self._clients["ecs"]

    def code(self, cluster: str = CLUSTER) -> DeployedCode:
        return DeployedCode(cast(Clients, self), {"mint": "cs-mint"}, cluster)

    def package(self) -> None:
        self.stubs["lambda"].add_response(
            "get_function_configuration", {"CodeSha256": HASH}, {"FunctionName": "cs-mint"}
        )


def container(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "image": "broker:latest", **({"imageDigest": f"sha256:{digest}"} if digest else {})}


def test_packages_and_images_are_named_by_their_hashes() -> None:
    """A tag can be moved, and a function's version does not change with its code: the digest of what was pulled."""
    stubs = Stubs()
    stubs.package()
    ecs = stubs.stubs["ecs"]
    asked = {"cluster": CLUSTER, "desiredStatus": "RUNNING"}
    ecs.add_response("list_tasks", {"taskArns": [f"{TASK}a"], "nextToken": "2"}, asked)
    ecs.add_response("list_tasks", {"taskArns": [f"{TASK}b"]}, {**asked, "nextToken": "2"})
    told = [
        {"taskDefinitionArn": DEFINITION, "containers": [container("broker", "a" * 64), container("starting", "")]},
        {"taskDefinitionArn": DEFINITION, "containers": [container("broker", "b" * 64)]},
    ]
    ecs.add_response("describe_tasks", {"tasks": told}, {"cluster": CLUSTER, "tasks": [f"{TASK}a", f"{TASK}b"]})
    assert stubs.code().now() == {
        "function:mint": "ca8aa05c9dc6d513ac1572d47e4c482876c288a7f678a0a2224c6892d354a0d1",
        "task:broker:7/broker": "a" * 64,
        f"task:broker:7/broker@{'b' * 12}": "b" * 64,  # the tag was moved between the two
    }


def test_a_function_that_does_not_exist_is_left_out_and_no_cluster_is_not_asked() -> None:
    """A deployment without the API on Lambda, or with brokers elsewhere, has its digests."""
    stubs = Stubs()
    stubs.stubs["lambda"].add_client_error("get_function_configuration", "ResourceNotFoundException")
    assert stubs.code(cluster="").now() == {}


@pytest.mark.parametrize("code", ["AccessDeniedException", "ServiceException"])
def test_what_cannot_be_read_is_no_nothing(code: str) -> None:
    """Fail closed: a digest without code would look like a deployment without functions."""
    stubs = Stubs()
    stubs.stubs["lambda"].add_client_error("get_function_configuration", code)
    with pytest.raises(StoreUnavailable):
        stubs.code(cluster="").now()


def test_a_cluster_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's cluster under our name must not fill the memory of what makes digests."""
    monkeypatch.setattr(deployed, "_MOST_TASKS", 1)
    stubs = Stubs()
    stubs.package()
    page = {"taskArns": [f"{TASK}a", f"{TASK}b"], "nextToken": "2"}
    stubs.stubs["ecs"].add_response("list_tasks", page)
    with pytest.raises(StoreUnavailable):
        stubs.code().now()
