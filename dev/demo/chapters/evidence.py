"""Chapter 7: the access review shows the tree; the evidence is copied and verifies; a copy that was tampered with does
not, and what was done to it is named; one file of it verifies where nothing but that file is; a replay is told of."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Final

from dev.demo.chapters.delegation import DEPLOY, TOOL
from dev.demo.chapters.job import DELETE, DROP, Job
from dev.demo.chapters.machine import FORBIDDEN
from dev.demo.chapters.witnesses import SEALED_S
from dev.demo.places import Done, Place
from dev.demo.stage import Stage
from dev.demo.waiting import wait_for
from dev.output import Style

UNANCHORED: Final = 78  # the exit code of `countersign verify` where nobody vouches for the keys
_SHOWN: Final = 40  # lines of a verdict that are shown


def onboard(stage: Stage) -> Place:
    """Give the auditor a place, rights to read, and, before anything happened, the fingerprints of the keys."""
    place = stage.places.place("auditor")
    environment = {**place.environment, **stage.ready["aws"]["auditor"]}
    auditor = Place(name=place.name, folder=place.folder, environment=environment, clock=place.clock)
    made = auditor.countersign("verify", "--write-trust", "trust")
    stage.screen.told(
        "An auditor wrote the fingerprints of the service's keys to a file of his own, before anything happened."
        if made.code == 0
        else f"The auditor got no fingerprints: {made.text}"
    )
    return auditor


def tell(stage: Stage, job: Job, auditor: Place, carol: Place) -> None:
    """Tell it; ``carol`` is where somebody of the security team is logged in. Raises DemoBroken."""
    chapter = _Chapter(stage, job, auditor)
    chapter.review()
    chapter.copy()
    chapter.tamper()
    reads = {**carol.environment, **stage.ready["aws"]["auditor"]}
    reader = Place(name=carol.name, folder=carol.folder, environment=reads, clock=carol.clock)
    chapter.archive(reader)
    chapter.replay(reader)


class _Chapter:
    def __init__(self, stage: Stage, job: Job, auditor: Place) -> None:
        self._stage = stage
        self._screen = stage.screen
        self._job = job
        self._auditor = auditor
        self._copy = auditor.folder / "evidence"

    def _run(self, *arguments: str) -> Done:
        return self._typed(self._auditor, *arguments)

    def review(self) -> None:
        self._stage.step(
            "The access review: who initiated it, which agents did what, was each step approved and logged"
        )
        wait_for("every manifest", self._sealed, self._stage.clock, SEALED_S)
        done = self._run("review", "--txn", self._job.txn)
        self._stage.show(done)
        self._screen.held(done.code == 0, "the review exits 0", f"it exited {done.code}")
        for what, word in (
            ("that signatures, hashes and sequence hold", "VERIFIED"),
            ("who initiated it", "acme/orders"),
            ("the agent of the container", DEPLOY),
            ("that it was vouched for", "vouched"),
            ("the tool below it", TOOL),
            ("that it was attested", "attested"),
            ("the command that was refused", FORBIDDEN),
            ("the blocked statement", DROP.rstrip(";")),
            ("the held statement", DELETE.rstrip(";")),
            ("who approved", "Alice Adams"),
            ("the rule that asked", "prod-write"),
            ("what was revoked", "revoked"),
            ("the session", self._job.session_id),
        ):
            self._screen.held(word in "\n".join(done.out), f"it says {what}: {word}")

    def copy(self) -> None:
        self._stage.step("The evidence is copied to a folder, and verifies with the auditor's fingerprints alone")
        copied = self._run("evidence", self._job.txn, str(self._copy))
        self._stage.show(copied)
        self._screen.held(copied.code == 0, "all of it is copied", f"exit code {copied.code}")
        alone = self._run("verify", str(self._copy))
        self._screen.came_back(alone.out[:1])
        self._screen.held(
            alone.code == UNANCHORED and "UNANCHORED" in alone.text,
            "by its own keys alone it is whole, but whose it is, nobody says: UNANCHORED",
            f"exit code {alone.code}",
        )
        sha256 = next((line.split()[1].rstrip(":") for line in copied.out if line.split()[:1] == ["SHA-256"]), "none")
        done = self._run("verify", str(self._copy), "--trust", "trust", "--sha256", sha256)
        self._shown(done)
        self._screen.held(done.code == 0 and "VERIFIED" in done.text, "the copy verifies", f"exit code {done.code}")

    def tamper(self) -> None:
        self._stage.step("One byte of a segment is changed, and another segment removed: verify names both")
        copy = self._auditor.folder / "tampered"
        shutil.copytree(self._copy, copy)
        segments = sorted(path for path in copy.rglob("*") if path.is_file() and "/rec/" in str(path))
        changed, removed = segments[0], segments[-1]
        _change_one_byte(changed)
        removed.unlink()
        self._screen.told(f"Changed: {changed.relative_to(copy)}. Removed: {removed.relative_to(copy)}.")
        done = self._run("verify", str(copy), "--trust", "trust")
        self._shown(done)
        self._screen.held(done.code not in (0, None), f"verify exits {done.code}")
        text = done.text
        self._screen.held(_key(changed, copy) in text, "it names the segment that was changed")
        self._screen.held(_key(removed, copy) in text, "and the one that is missing")

    def archive(self, carol: Place) -> None:
        self._stage.step(
            "Carol takes it all in one file, which the service vouches for; it verifies where nothing else is"
        )
        file = carol.folder / "chain.tar"
        made = self._typed(carol, "evidence", self._job.txn, "--archive", file.name)
        self._stage.show(made)
        self._screen.held(made.code == 0 and file.is_file(), "the archive is made", f"exit code {made.code}")
        told = self._stage.trail.find("evidence.copied", lambda event: event.get("txn") == self._job.txn)
        self._screen.held(told is not None, "and that it was made is an audit event itself")
        desk = self._stage.places.place("desk")  # no role, no login, no network needed
        done = desk.countersign("verify", str(file), "--trust", str(self._auditor.folder / "trust"))
        self._shown(done)
        self._screen.held(done.code == 0 and "VERIFIED" in done.text, "the file verifies", f"exit code {done.code}")

    def replay(self, carol: Place) -> None:
        self._stage.step("She replays a session as a page; that she looked is told before she sees a byte")
        page = carol.folder / "replay.html"
        done = self._typed(carol, "replay", self._job.session_id, "--html", page.name)
        self._screen.came_back(done.err[:_SHOWN], Style.DIM)
        self._screen.held(done.code == 0, "the page is made", f"exit code {done.code}")
        text = page.read_text(errors="replace") if page.is_file() else ""
        self._screen.held(DROP.rstrip(";") in text, "it has the statement that was blocked")
        self._screen.held("http://" not in text.replace("http://www.w3.org/", ""), "and fetches nothing from anywhere")
        session_id = self._job.session_id
        told = self._stage.trail.find("recording.replayed", lambda event: event.get("session_id") == session_id)
        who = str(told.get("actor", "")) if told is not None else ""
        self._screen.held(
            told is not None, f"the audit trail says who looked: {who}", "the audit trail does not say it"
        )

    def _typed(self, place: Place, *arguments: str) -> Done:
        self._screen.typed(shlex.join(["countersign", *arguments]), prompt=f"{place.name}$")
        return place.countersign(*arguments)

    def _sealed(self) -> bool | None:
        """Return whether each connection that has a segment has a manifest too."""
        keys = self._stage.cloud.keys()
        recorded = {"/".join(key.split("/")[2:4]) for key in keys if key.startswith("rec/v1/")}
        manifests = [key for key in keys if key.startswith("manifests/")]
        return all(any(name in key for key in manifests) for name in recorded) or None

    def _shown(self, done: Done) -> None:
        self._screen.came_back(done.out[:_SHOWN])
        self._screen.came_back(done.err[:_SHOWN], Style.DIM)


def _change_one_byte(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))


def _key(path: Path, copy: Path) -> str:
    """Return the object's key, which the copy has as a path."""
    text = str(path.relative_to(copy))
    return text[text.index("rec/") :]
