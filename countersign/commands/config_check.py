"""`countersign config check DIR`: everything that is wrong with a bundle, by file and line. It needs only the files."""

from __future__ import annotations

import argparse
from pathlib import Path

from chalicelib.domain.errors import ConfigurationInvalid
from countersign.commands.asking import Invocation
from countersign.failures import Exit
from countersign.printable import counted, safe_line


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="the folder with targets.yaml, issuers.yaml, policies/, ...")


def config_check(invocation: Invocation) -> int:
    """Return 0 where the bundle would load, 65 where it would not. Raises ModuleNotFoundError without the extra."""
    from chalicelib.config.files import read_directory
    from chalicelib.config.loader import load_bundle
    from chalicelib.domain.problem import problems_of
    from chalicelib.policy.engine import compile_policy

    output, directory = invocation.output, Path(invocation.options.directory)
    try:
        bundle = load_bundle(read_directory(directory), compile_policy)
    except ConfigurationInvalid as error:
        problems = problems_of(error, file=str(directory))
        told = [{"file": p.file, "line": p.line, "message": p.message, "remedy": p.remedy} for p in problems]
        output.result({"valid": False, "problems": told})
        for problem in problems:
            place = f"{problem.file}:{problem.line}" if problem.line else problem.file
            output.line(f"{output.paint(safe_line(place), 'bold')}: {safe_line(problem.message)}")
            output.line(f"    {safe_line(problem.remedy)}")
        output.line(f"{len(problems)} to correct.")
        return Exit.INVALID
    counts = {"targets": len(bundle.targets), "issuers": len(bundle.issuers), "people": len(bundle.people)}
    output.result({"valid": True, "digest": bundle.digest, **counts, "masks": len(bundle.masks)})
    parts = [counted(len(bundle.targets), "target"), counted(len(bundle.issuers), "issuer")]
    parts += [counted(len(bundle.people), "person", "people"), counted(len(bundle.masks), "mask")]
    output.line(f"{output.paint('valid', 'green')}   {', '.join(parts)}")
    output.line(f"digest  {bundle.digest}")
    return Exit.DONE
