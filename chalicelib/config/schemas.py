"""The JSON schema of each configuration file (draft 2020-12), for editors and for ``docs/schema``.

``python -m chalicelib.config.schemas docs/schema`` writes them; a test compares what is committed. A schema says what
one file may hold; what only all files together can show is ``loader``'s.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from chalicelib.config.approvers import ApproversFile
from chalicelib.config.files import APPROVERS, ISSUERS, MASKING, TARGETS
from chalicelib.config.issuers import IssuersFile
from chalicelib.config.masking import MaskingFile
from chalicelib.config.model import BundleFile
from chalicelib.config.targets import TargetsFile

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MODELS: Final[Mapping[str, type[BundleFile]]] = {
    TARGETS: TargetsFile,
    ISSUERS: IssuersFile,
    APPROVERS: ApproversFile,
    MASKING: MaskingFile,
}


def schemas() -> Mapping[str, str]:
    """Return the text of each schema, by its own file name (``targets.json``). Pure."""
    return {name.replace(".yaml", ".json"): _text(name, model) for name, model in _MODELS.items()}


def _text(name: str, model: type[BundleFile]) -> str:
    schema = {"$schema": DIALECT, **model.model_json_schema(), "title": name}
    _close(schema)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _close(part: object) -> None:
    """Say of each mapping whose keys have a pattern that no other key is allowed: pydantic refuses one, and leaves that
    out of the schema, so that an editor would accept a misspelt name."""
    if isinstance(part, dict):
        if "patternProperties" in part:
            part.setdefault("additionalProperties", False)
        for below in part.values():
            _close(below)
    elif isinstance(part, list):
        for below in part:
            _close(below)


def main(arguments: Sequence[str]) -> int:
    """Write the schemas into the directory that ``arguments`` name. Returns the exit code: 64 on a wrong call."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m chalicelib.config.schemas DIRECTORY\n")
        return 64
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (directory / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
