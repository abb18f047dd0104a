"""Which code runs, as AWS says it: the package of each function, and the image of each container of the broker's tasks.

``GetFunctionConfiguration`` gives the SHA-256 of a function's package without a way to download it (``GetFunction``
has one). Of tasks it is the digest of the image that was pulled, not the tag that the definition names: a tag moves.
What does not exist is left out; a cluster that is not named is not asked for.
Source: AWS Lambda API reference, GetFunctionConfiguration (``CodeSha256``, base64); Amazon ECS API reference,
ListTasks (100 a page), DescribeTasks (100 a call; ``imageDigest``).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.store.clients import Clients, calling
from chalicelib.store.dates import ServiceDates

_ABSENT: Final = "ResourceNotFoundException"
_MOST_TASKS: Final = 1000  # ten pages: a deployment has a handful


def open_running_code(functions: Mapping[str, str], cluster: str, region: str, clock: Clock) -> DeployedCode:
    """Return what says which code runs. ``functions`` are full names by the names that they get here, ``cluster`` the
    name of the brokers' ECS cluster, empty where there is none. Makes no call."""
    return DeployedCode(Clients(region, ServiceDates(clock)), functions, cluster)


class DeployedCode:
    """Implements ``domain.store.RunningCode``."""

    def __init__(self, clients: Clients, functions: Mapping[str, str], cluster: str) -> None:
        self._clients = clients
        self._functions = dict(functions)
        self._cluster = cluster

    def now(self) -> Mapping[str, str]:
        found = {f"function:{name}": self._package(full) for name, full in self._functions.items()}
        return {**{name: sha256 for name, sha256 in found.items() if sha256}, **self._images()}

    def _package(self, name: str) -> str:
        absent = NotFound("there is no such function", function=name)
        try:
            with calling("lambda", lambda code: absent if code == _ABSENT else None):
                told = self._clients.functions().get_function_configuration(FunctionName=name)
        except NotFound:
            return ""
        try:
            return base64.b64decode(str(told["CodeSha256"]), validate=True).hex()
        except (KeyError, ValueError) as error:
            raise StoreUnavailable("a function's package has no hash", function=name) from error

    def _images(self) -> Mapping[str, str]:
        """Return the images' digests by ``task:FAMILY:REVISION/CONTAINER``; a task whose image is not pulled yet has
        none, and of two digests under one name, which a moved tag makes, the second gets its own name."""
        found: dict[str, str] = {}
        tasks = self._tasks() if self._cluster else []
        for first in range(0, len(tasks), 100):
            with calling("ecs"):
                told = self._clients.tasks().describe_tasks(cluster=self._cluster, tasks=tasks[first : first + 100])
            for task in told["tasks"]:
                _add(found, task)
        return found

    def _tasks(self) -> list[str]:
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            with calling("ecs"):
                page = self._clients.tasks().list_tasks(cluster=self._cluster, desiredStatus="RUNNING", **more)
            found += page["taskArns"]
            if not page.get("nextToken"):
                return found
            if len(found) >= _MOST_TASKS:
                raise StoreUnavailable("a cluster runs more tasks than any of ours", service="ecs")
            more = {"nextToken": page["nextToken"]}


def _add(found: dict[str, str], task: Mapping[str, Any]) -> None:
    definition = str(task.get("taskDefinitionArn", "")).rpartition("/")[2]
    for container in task.get("containers", []):
        digest = str(container.get("imageDigest", "")).removeprefix("sha256:")
        if not digest:
            continue
        name = f"task:{definition}/{container.get('name', '')}"
        if found.setdefault(name, digest) != digest:
            found[f"{name}@{digest[:12]}"] = digest
