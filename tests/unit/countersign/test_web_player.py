"""The player's package: read if it is the pinned one, wherever it lies; nothing else is run in a page of evidence."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from countersign import web_player
from countersign.failures import Exit, Failure
from countersign.web_player import read_player
from dev.web_player import find_player


@pytest.fixture(scope="session")
def package() -> Path:
    return find_player()


def test_the_pinned_package_is_read(package: Path) -> None:
    """Its code, its style, and the licence that must travel with them."""
    player = read_player(package)
    assert player is not None
    assert "AsciinemaPlayer" in player.script
    assert ".ap-" in player.style
    assert "Apache License" in player.licence


def test_another_player_is_not_run_in_the_page(package: Path, tmp_path: Path) -> None:
    """Attack: the package in the cache, or the one that an auditor was sent, has one byte more."""
    changed = tmp_path / "player.tgz"
    changed.write_bytes(package.read_bytes() + b"\0")
    other = tmp_path / "other.tgz"
    with tarfile.open(other, "w:gz") as file:
        file.add(package, arcname="package/dist/bundle/asciinema-player.min.js")
    for path in (changed, other):
        with pytest.raises(Failure, match="not asciinema-player") as refused:
            read_player(path)
        assert refused.value.exit_code is Exit.USAGE


def test_an_endless_package_is_not_read_to_its_end() -> None:
    """Attack: a device, or a file without end."""
    with pytest.raises(Failure, match="not asciinema-player"):
        read_player(Path("/dev/zero"))


def test_a_package_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named and not there is a mistake; an installation without it has terminals as text; one with a wrong one is
    broken, and that is said."""
    with pytest.raises(Failure, match="cannot be read"):
        read_player(tmp_path / "none.tgz")
    monkeypatch.setattr(web_player, "PACKAGED", tmp_path / "none.tgz")
    assert read_player() is None
    (tmp_path / "none.tgz").write_bytes(b"wrong")
    with pytest.raises(Failure, match="not asciinema-player"):
        read_player()
