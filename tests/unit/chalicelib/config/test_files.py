"""A bundle as files: its digest, the one object in the store, and the directory that it is read from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.config.files import (
    MAX_BUNDLE_BYTES,
    MAX_FILES,
    bundle_digest,
    decode_bundle,
    encode_bundle,
    read_directory,
)
from chalicelib.domain.errors import ConfigurationInvalid
from tests.unit.chalicelib.config.bundles import files, only, problems

texts = st.dictionaries(
    st.text(max_size=20), st.text(max_size=50).map(lambda text: text.encode("utf-8", "ignore")), max_size=5
)


@given(texts)
def test_what_is_encoded_comes_back_with_the_same_digest(given_files: dict[str, bytes]) -> None:
    """The reader recomputes the digest from what came out: a byte lost on the way would stop everything."""
    encodable = {name.encode("utf-8", "ignore").decode(): content for name, content in given_files.items()}
    back = decode_bundle(encode_bundle(encodable))
    assert back == encodable
    assert bundle_digest(back) == bundle_digest(encodable)


def test_the_digest_covers_names_and_contents_and_not_their_order() -> None:
    """Moving a text from one file to another is another bundle."""
    assert bundle_digest({"a": b"1", "b": b"2"}) == bundle_digest({"b": b"2", "a": b"1"})
    others = [{"a": b"2", "b": b"1"}, {"a": b"1"}, {"a": b"1", "b": b"2 "}, {"a": b"1", "c": b"2"}, {}]
    assert len({bundle_digest(other) for other in [{"a": b"1", "b": b"2"}, *others]}) == 6


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"x"',
        b"{",
        b'{"a": 1}',
        b'{"a": null}',
        b"\xff",
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b" " * (2 * MAX_BUNDLE_BYTES + 1),
        b"{" + b",".join(b'"%d": ""' % n for n in range(MAX_FILES + 1)) + b"}",
    ],
)
def test_an_object_that_is_no_bundle_is_refused(body: bytes) -> None:
    """It comes from a bucket: its shape and size are checked before anything else."""
    with pytest.raises(ConfigurationInvalid):
        decode_bundle(body)


def test_what_cannot_be_stored_is_refused_when_it_is_encoded() -> None:
    """Not later, by every process that reads it."""
    for given_files in (
        {"a": b"\xff"},
        {"a": b"x" * (MAX_BUNDLE_BYTES + 1)},
        {str(n): b"" for n in range(MAX_FILES + 1)},
    ):
        with pytest.raises(ConfigurationInvalid):
            encode_bundle(given_files)


def test_a_bundle_past_its_limits_is_refused() -> None:
    """Many small files are as slow to load as a large one."""
    extra = {f"policies/p{number}.cedar": b"// nothing\n" for number in range(MAX_FILES)}
    assert any("more than" in problem.message for problem in problems({**files(), **extra}))


def write(directory: Path, given_files: dict[str, bytes]) -> None:
    for name, content in given_files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_a_directory_is_read_without_secrets_and_hidden_files(tmp_path: Path) -> None:
    """The secrets of a local stack lie beside the bundle: read with it, they would be signed and kept for ever."""
    hidden = {"secrets.yaml": b"x: y", ".git/HEAD": b"ref", ".DS_Store": b"", "policies/.main.cedar.swp": b""}
    write(tmp_path, {**files(), **hidden})
    assert read_directory(tmp_path) == files()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A link could bring /etc/passwd, or another person's file, into what is pushed."""
    outside = tmp_path / "outside.cedar"
    outside.write_text("")
    for name in ("policies/link.cedar", "link.yaml", "folder", "policies/folder.cedar"):
        bundle = tmp_path / name.replace("/", "_")
        write(bundle, files())
        if "link" in name:
            (bundle / name).symlink_to(outside)
        else:
            (bundle / name).mkdir()
        with pytest.raises(ConfigurationInvalid, match="not a regular file"):
            read_directory(bundle)
    with pytest.raises(ConfigurationInvalid, match="not a directory"):
        read_directory(outside)


def test_a_directory_with_too_many_files_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Somebody named their home directory."""
    write(tmp_path, {f"f{number:04}": b"" for number in range(MAX_FILES + 1)})
    with pytest.raises(ConfigurationInvalid, match="more than"):
        read_directory(tmp_path)


def test_a_file_past_the_limit_is_read_no_further(tmp_path: Path) -> None:
    """And the loader says which it was."""
    write(tmp_path, files(targets=b"#" * (3 << 20)))
    found = read_directory(tmp_path)
    assert len(found["targets.yaml"]) == (1 << 20) + 1
    assert only(found).file == "targets.yaml"
