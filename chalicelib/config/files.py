"""A bundle as files: which there are, their digest, and one object that holds them all.

The digest covers names and contents and nothing else, so that the same files are the same bundle wherever they lie. The
stored object is canonical JSON of name to text; whoever reads it recomputes the digest from what came out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from chalicelib.domain.canonical import canonical, digest, sha256_hex
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.problem import Problem, configuration_invalid

TARGETS: Final = "targets.yaml"
ISSUERS: Final = "issuers.yaml"
APPROVERS: Final = "approvers.yaml"
MASKING: Final = "masking.yaml"
DOCUMENTS: Final = (TARGETS, ISSUERS, APPROVERS, MASKING)
SECRETS: Final = "secrets.yaml"  # beside a bundle in a local stack, never part of one
MAX_FILE_BYTES: Final = 1 << 20  # some ten thousand targets; a larger file is a mistake or an attack
MAX_FILES: Final = 200  # four documents and the policies of a large company
MAX_BUNDLE_BYTES: Final = 8 << 20  # what a Lambda reads and parses in a second or two; all files together
_POLICY: Final = re.compile(r"policies/[a-z0-9][a-z0-9_-]{0,62}\.cedar\Z")


def is_policy(name: str) -> bool:
    return _POLICY.match(name) is not None


def bundle_digest(files: Mapping[str, bytes]) -> str:
    """Return the digest of the bundle that ``files`` (name to content) are, 64 hexadecimal digits. Pure."""
    return digest([[name, sha256_hex(files[name])] for name in sorted(files)])


def name_problems(files: Mapping[str, bytes]) -> Iterator[Problem]:
    """Yield what is wrong with which files there are."""
    for name in sorted(set(DOCUMENTS) - set(files)):
        yield Problem(
            file=name, line=0, message="the file is missing", remedy="Add it; docs/schema says what it holds."
        )
    if not any(is_policy(name) for name in files):
        yield Problem(
            file="policies", line=0, message="there is no policy file", remedy="Add one as policies/NAME.cedar."
        )
    for name in sorted(files):
        if name not in DOCUMENTS and not is_policy(name):
            known = f"{', '.join(DOCUMENTS)} and policies/NAME.cedar (lower case)"
            yield Problem(
                file=name, line=0, message="nobody knows this file", remedy=f"A bundle is {known}: remove it."
            )
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_BUNDLE_BYTES:
        limit = f"{MAX_FILES} files of {MAX_BUNDLE_BYTES} bytes together"
        yield Problem(file="policies", line=0, message=f"the bundle has more than {limit}", remedy="Shorten it.")


def encode_bundle(files: Mapping[str, bytes]) -> bytes:
    """Return ``files`` as the one object that the store keeps. Raises ConfigurationInvalid where one is not UTF-8 text,
    or where all together are past the limit."""
    texts: dict[str, str] = {}
    for name, content in files.items():
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError:
            problem = Problem(file=name, line=0, message="the file is not UTF-8 text", remedy="Save it as UTF-8.")
            raise configuration_invalid((problem,)) from None
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_BUNDLE_BYTES:
        raise ConfigurationInvalid(f"a bundle has at most {MAX_FILES} files and {MAX_BUNDLE_BYTES} bytes")
    return canonical(texts)


def decode_bundle(body: bytes) -> dict[str, bytes]:
    """Return the files that :func:`encode_bundle` put into ``body``. Checks its shape and size and nothing else: the
    digest is the caller's to compare. Raises ConfigurationInvalid."""
    if len(body) > 2 * MAX_BUNDLE_BYTES:  # JSON at worst doubles a text of quotes and line ends
        raise ConfigurationInvalid("the stored bundle is too large", bytes=len(body))
    try:
        found = json.loads(body)
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise ConfigurationInvalid("the stored bundle is not a mapping of names to texts")
        files = {str(name): text.encode() for name, text in found.items()}
    except (ValueError, RecursionError):
        raise ConfigurationInvalid("the stored bundle is not JSON text") from None
    if len(files) > MAX_FILES:
        raise ConfigurationInvalid("the stored bundle has too many files", files=len(files))
    return files


def read_directory(directory: Path) -> dict[str, bytes]:
    """Return the files of the bundle in ``directory``, by name with forward slashes.

    Left out: names that start with a dot, and ``secrets.yaml``, whose values belong in the secret store and never in a
    bundle. Links are not followed, so that a bundle holds no file from elsewhere. Raises ConfigurationInvalid.
    """
    if not directory.is_dir():
        raise _unreadable(str(directory), "it is not a directory", "Name the directory that holds the bundle.")
    files: dict[str, bytes] = {}
    for path in _walk(directory):
        name = path.relative_to(directory).as_posix()
        if name == SECRETS:
            continue
        if path.is_symlink() or not path.is_file():
            raise _unreadable(name, "it is not a regular file", "Replace it by a file, or remove it.")
        try:
            with path.open("rb") as file:
                files[name] = file.read(MAX_FILE_BYTES + 1)  # one more, so that the loader sees that it is too large
        except OSError as error:
            raise _unreadable(name, f"it cannot be read ({error.strerror})", "Correct its permissions.") from None
        if len(files) > MAX_FILES:
            raise _unreadable(name, f"there are more than {MAX_FILES} files", "Name the bundle's own directory.")
    return files


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if path.name == "policies" and path.is_dir() and not path.is_symlink():
            yield from (below for below in sorted(path.iterdir()) if not below.name.startswith("."))
        else:
            yield path


def _unreadable(name: str, message: str, remedy: str) -> ConfigurationInvalid:
    return configuration_invalid((Problem(file=name, line=0, message=message, remedy=remedy),))
