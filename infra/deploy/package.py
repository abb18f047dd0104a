"""The SAM package for those who deploy by a pipeline, and what must be true of the zip that any way of deploying sends.

Rules: Chalice's template names no function, and ours find each other by name, so each gets the name that ``chalice
deploy`` would have given it. A library of another architecture, a zip that is too large, or one without our modules
fails here and not at the first event.
Source: Chalice 1.34, ``chalice.package`` (logical ids are the names in CamelCase; the API's is ``APIHandler``); ELF-64,
``e_machine`` (62: x86-64, 183: AArch64); AWS Lambda quotas (50 MB zipped for a direct upload, 250 MB unzipped).
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from infra.deploy.stage import API_FUNCTION
from infra.deploy.tools import StepFailed

MOST_ZIPPED: Final = 50 * 1000 * 1000
MOST_UNZIPPED: Final = 250 * 1000 * 1000
_MACHINES: Final = {"x86_64": 62, "arm64": 183}
_NEEDED: Final = (
    "app.py",
    "chalicelib/settings.py",
    "chalice/app.py",
    "boto3/__init__.py",
    "pydantic_core/__init__.py",
)
_API_LOGICAL: Final = "APIHandler"


def with_names(template: Mapping[str, Any], function_prefix: str) -> dict[str, Any]:
    """Return the SAM template with every function named as the app calls it. Raises StepFailed where a function of the
    template is not one of Chalice's names. Pure."""
    resources = json.loads(json.dumps(template["Resources"]))
    for logical, resource in resources.items():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["FunctionName"] = _full_name(
                logical, resource["Properties"]["Handler"], function_prefix
            )
        elif resource["Type"] == "AWS::IAM::Role":
            raise StepFailed(f"the stage has no role for {logical}: run the deployment's first step, which writes them")
    return {**template, "Resources": resources}


def _full_name(logical: str, handler: str, function_prefix: str) -> str:
    name = handler.rpartition(".")[2]
    if logical == _API_LOGICAL:
        return function_prefix.rstrip("-")
    if not handler.startswith("app.") or name.replace("_", "") != logical.lower() or name == API_FUNCTION:
        raise StepFailed(f"the template's {logical} is no function of ours")
    return f"{function_prefix}{name}"


def zip_problems(path: Path, architecture: str) -> Iterator[str]:
    """Say what is wrong with a deployment package: nothing, if all is well."""
    zipped = path.stat().st_size
    if zipped > MOST_ZIPPED:
        yield f"it has {zipped} bytes; Lambda takes {MOST_ZIPPED}"
    with zipfile.ZipFile(path) as package:
        entries = package.infolist()
        unzipped = sum(entry.file_size for entry in entries)
        if unzipped > MOST_UNZIPPED:
            yield f"unzipped it has {unzipped} bytes; Lambda takes {MOST_UNZIPPED}"
        names = {entry.filename for entry in entries}
        yield from (f"it has no {name}" for name in _NEEDED if name not in names)
        for entry in entries:
            if entry.filename.endswith(".so") or ".so." in entry.filename:
                with package.open(entry) as library:
                    machine = _machine(library.read(20))
                if machine != _MACHINES[architecture]:
                    yield f"{entry.filename} is not for {architecture}"


def _machine(header: bytes) -> int:
    if not header.startswith(b"\x7fELF") or len(header) < 20:
        return 0
    return int(struct.unpack_from("<H", header, 18)[0])
