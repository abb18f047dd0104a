"""The archive's one byte form: what is written reads back, and whatever another tar could hold is refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.errors import AlreadyExists, NotFound, StoreUnavailable
from chalicelib.store import archive_file
from chalicelib.store.archive_file import ArchiveFiles, header_of, write_archive
from chalicelib.store.folder_files import MAX_FILE

FILES = {
    "MANIFEST.json": b"{}",
    "STATEMENT.json": b"{}",
    "README.txt": b"x" * 511,
    "objects/rec/v1/ses_01m6dsg7e0fwejtv7egfb0rbxm/con_01m6dsg7e0fwejtv7egfb0rbxm/000000.ndjson.gz": b"y" * 512,
    "rows.json": b"",
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, body in files.items():
        (folder / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "copy" / path).write_bytes(body)
    write_archive(folder / "copy", folder / "out.tar")
    return folder / "out.tar"


def test_what_a_killed_run_left_stands_in_nobodys_way_and_is_not_ours_to_remove(tmp_path: Path) -> None:
    """It may be another run's that is still writing: whoever is first has the name, and nobody's half goes."""
    left = tmp_path / "out.tar.part"
    left.write_bytes(b"half")
    assert ArchiveFiles(write(tmp_path, FILES)).read("README.txt") == FILES["README.txt"]
    assert left.read_bytes() == b"half"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out.tar", "out.tar.part"]


def faults(path: Path) -> list[str]:
    """Return what is wrong with an archive; that it is none at all is as good."""
    try:
        return [fault.what for fault in ArchiveFiles(path).faults]
    except NotFound as error:
        return [error.public]


def test_what_is_written_reads_back_and_any_tar_opens_it(tmp_path: Path) -> None:
    """The list and the statement first; no time, owner or mode of the machine that made it."""
    path = write(tmp_path, FILES)
    files = ArchiveFiles(path)
    assert files.faults == []
    assert {name: files.read(name) for name in files.paths()} == FILES
    with tarfile.open(path, "r:") as other:
        assert other.getnames()[:2] == ["MANIFEST.json", "STATEMENT.json"]
        assert sorted(other.getnames()) == sorted(FILES)
        assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in other} == {(0, 0, 0, "", 0o644)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("out")] == ["out.tar"]


def test_nothing_is_replaced_and_nothing_half_is_left(tmp_path: Path) -> None:
    """An archive that is there may be the only one."""
    path = write(tmp_path, FILES)
    before = path.read_bytes()
    with pytest.raises(AlreadyExists):
        write_archive(tmp_path / "copy", path)
    assert path.read_bytes() == before
    with pytest.raises(StoreUnavailable):
        write_archive(tmp_path / "copy", tmp_path / "no-such-folder" / "out.tar")
    (tmp_path / "copy" / ("n" * 120)).write_bytes(b"")  # ustar has no room for it
    with pytest.raises(StoreUnavailable):
        write_archive(tmp_path / "copy", tmp_path / "other.tar")
    assert not list(tmp_path.glob("other.tar*"))


def entry(name: str, body: bytes = b"x", **changed: object) -> bytes:
    """One entry as another tar writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(body), 0o644
    for attribute, value in changed.items():
        setattr(info, attribute, value)
    padded = body + bytes(-len(body) % 512)
    if "pax_headers" in changed:
        return info.tobuf(tarfile.PAX_FORMAT) + padded
    return info.tobuf(tarfile.GNU_FORMAT if len(name) > 100 else tarfile.USTAR_FORMAT) + padded


END = bytes(1024)
GOOD = header_of("MANIFEST.json", 2) + b"{}" + bytes(510)
HOSTILE: dict[str, bytes] = {
    "a symbolic link": GOOD + entry("a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd") + END,
    "a hard link": GOOD + entry("a", b"", type=tarfile.LNKTYPE, linkname="MANIFEST.json") + END,
    "a device": GOOD + entry("a", b"", type=tarfile.CHRTYPE) + END,
    "a folder": GOOD + entry("a", b"", type=tarfile.DIRTYPE) + END,
    "a name that leads out": GOOD + entry("../../etc/cron.d/x") + END,
    "an absolute name": GOOD + entry("/etc/passwd") + END,
    "a name with an escape": GOOD + entry("a\x1b]0;x\x07") + END,
    "a name that is no ASCII": GOOD + entry("ä") + END,
    "a hidden name": GOOD + entry(".bashrc") + END,
    "a second file of a name": GOOD + GOOD + END,
    "another order": GOOD + entry("b") + entry("a") + END,
    "an extended header": GOOD + entry("a", pax_headers={"path": "b"}) + END,
    "a long name": GOOD + entry("a" * 120) + END,
    "a sparse file": GOOD + entry("a", b"", type=tarfile.GNUTYPE_SPARSE) + END,
    "another mode": GOOD + entry("a", mode=0o4755) + END,
    "another time": GOOD + entry("a", mtime=1) + END,
    "a size that is not there": GOOD + header_of("a", 4096) + b"x" + END,
    "a size past any file": GOOD + entry("a", b"", size=MAX_FILE + 1) + END,
    "a wrong checksum": GOOD + bytes([entry("a")[0] + 1]) + entry("a")[1:] + END,
    "something between files": header_of("MANIFEST.json", 2) + b"{}" + b"x" * 510 + END,
    "no end": GOOD,
    "half an end": GOOD + bytes(512),
    "something after its end": GOOD + END + b"x",
    "a second archive after its end": GOOD + END + GOOD + END,
    "a packed archive": gzip.compress(GOOD + END),
    "nothing": b"",
    "an end alone": END,
    "a bomb": gzip.compress(bytes(1 << 20)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, what: str) -> None:
    """Attack: an archive that this and another reader would read differently, or that leads out of itself."""
    path = tmp_path / "hostile.tar"
    path.write_bytes(HOSTILE[what])
    assert faults(path)


def test_a_good_one_of_the_same_making_is_taken(tmp_path: Path) -> None:
    """Else the table above would show nothing."""
    path = tmp_path / "good.tar"
    path.write_bytes(GOOD + entry("a") + entry("b", b"") + END)
    assert faults(path) == []


def test_an_archive_of_more_files_than_any_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million empty files are half a gigabyte, and an index of them many times that."""
    monkeypatch.setattr(archive_file, "MAX_FILES", 2)
    path = tmp_path / "many.tar"
    path.write_bytes(GOOD + entry("a") + entry("b") + END)
    assert faults(path) == ["holds more files than any copy"]


@pytest.mark.parametrize("what", ["a pipe", "a folder", "nothing there"])
def test_what_is_no_file_is_no_archive(tmp_path: Path, what: str) -> None:
    """A pipe would be waited for for ever."""
    path = tmp_path / "x"
    make: dict[str, Callable[[], object]] = {"a pipe": lambda: os.mkfifo(path), "a folder": path.mkdir}
    make.get(what, lambda: None)()
    with pytest.raises((NotFound, StoreUnavailable)):
        ArchiveFiles(path)


@settings(deadline=None, max_examples=200)
@given(at=st.integers(0, len(GOOD + entry("a" * 40, b"z" * 700) + END) - 1), bit=st.integers(0, 7))
def test_any_single_changed_bit_outside_of_a_files_content_is_a_fault(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    """There is one byte form: what is not the content is what is written here, bit for bit."""
    name, body = "a" * 40, b"z" * 700
    whole = bytearray(GOOD + entry(name, body) + END)
    whole[at] ^= 1 << bit
    path = tmp_path_factory.mktemp("bit") / "x.tar"
    path.write_bytes(bytes(whole))
    try:
        files = ArchiveFiles(path)
    except NotFound:
        return
    if not files.faults:
        read = {one: files.read(one) for one in files.paths()}
        assert read != {"MANIFEST.json": b"{}", name: body}
        renamed = set(read) != {"MANIFEST.json", name}
        assert not renamed, "a header has a checksum"


def test_an_archive_that_is_read_by_another_tar_has_the_same_content(tmp_path: Path) -> None:
    """What somebody unpacks to look at is what was verified."""
    path = write(tmp_path, FILES)
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as other:
        for name in FILES:
            content = other.extractfile(name)
            assert content is not None
            assert content.read() == FILES[name]
