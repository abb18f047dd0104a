"""The throw-away PostgreSQL: real, seeded, its log the witness, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.domain.errors import TargetUnavailable
from dev import seed
from dev.postgres_binaries import PACKAGES, find_postgres
from dev.postgres_server import DATABASE, Login, PostgresServer, make_orders
from dev.processes import listening
from dev.settings import server_account


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("postgres") / "log"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[PostgresServer]:
    made = PostgresServer(find_postgres(), log=log, account=server_account())
    made.wait()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def owner(server: PostgresServer) -> Login:
    return make_orders(server)


def test_the_target_holds_what_the_contract_says(server: PostgresServer, owner: Login) -> None:
    """Read as the owner that the broker logs in as, with its password."""
    counts = server.run("SELECT count(*) FROM customers; SELECT count(*) FROM orders", login=owner, database=DATABASE)
    assert counts.split() == ["1000", "10000"]
    first = next(iter(seed.customers()))
    row = server.run("SELECT email, card_number FROM customers WHERE id = 1", login=owner, database=DATABASE)
    assert row.strip() == f"{first.email}|{first.card_number}"


def test_a_wrong_password_is_refused(server: PostgresServer, owner: Login) -> None:
    """P7 rests on the target's own login: `trust` would make every proof about credentials worthless."""
    with pytest.raises(TargetUnavailable, match="password authentication failed"):
        server.run("SELECT 1", login=Login(user=owner.user, password=server.admin.password), database=DATABASE)


def test_the_log_shows_statements_with_who_sent_them_and_no_secret(
    server: PostgresServer, owner: Login, log: Path
) -> None:
    """It is the witness of the demo, and people paste logs into tickets."""
    server.run("SELECT 'seen in the log'", login=owner, database=DATABASE)
    text = log.read_text()
    (line,) = [line for line in text.splitlines() if "seen in the log" in line]
    assert " 127.0.0.1 app=countersign dev LOG: " in line
    assert f"connection authorized: user={owner.user} database={DATABASE}" in text
    secrets = [owner.password.expose(), server.admin.password.expose(), *seed.planted()]
    assert not any(secret in text for secret in secrets)


def test_stopping_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither a process nor a folder; the account that it ran under was there before."""
    made = PostgresServer(find_postgres(), log=tmp_path / "log", account=server_account())
    made.wait()
    folder = made.folder
    made.stop()
    made.stop()
    assert not folder.exists()
    assert not listening(made.port)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *(
            ("postgresql-15", True),
            ("postgresql-client-16", True),
            ("libpq5", True),
            ("libssl3", True),
            ("zlib1g", True),
        ),
        *(("libc6", False), ("libc-bin", False), ("libperl5.36", False), ("libjson-perl", False), ("libllvm14", False)),
        *(("postgresql-common", False), ("postgresql", False), ("passwd", False), ("ssl-cert", False)),
    ],
)
def test_only_the_server_and_its_libraries_are_unpacked(name: str, wanted: bool) -> None:
    """libc of another release beside the machine's own loader crashes; what only scripts need is dead weight."""
    assert PACKAGES.wanted([name]) == ([name] if wanted else [])
