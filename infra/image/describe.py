"""Names our own distribution in an image: ``describe.py PYPROJECT FOLDER`` writes the metadata that an install would.

``countersign --version`` and every list of what an image holds read it. The code itself is copied and not built, so
that an image needs no build tool. Standard library only.
Source: https://packaging.python.org/en/latest/specifications/core-metadata/.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(pyproject: Path, folder: Path) -> int:
    """Write ``folder``/NAME-VERSION.dist-info; return the exit status."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    name, version, licence = project["name"], project["version"], project["license"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    fields = (f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n", f"License-Expression: {licence}\n")
    (info / "METADATA").write_text("".join(fields), encoding="utf-8")
    (info / "RECORD").write_text("", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
