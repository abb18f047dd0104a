"""The named queries over objects that the broker really wrote: DuckDB runs the very text that Athena gets.

What this does not prove: that Trino's planner takes it and answers the same (``docs/queries.md``).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from chalicelib.domain.event_columns import EVENT_COLUMNS
from countersign.named_queries import Kind, NamedQuery, folder, names, parse_query, read_query
from countersign.query_local import TABLE_COLUMNS, prefixes, tables_of
from tests.fakes.clock import START
from tests.functional.archive import copy_bucket
from tests.functional.worked import CHILD, Archive, worked_archive

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "infra/athena/tables"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """What one broker wrote."""
    return worked_archive(tmp_path_factory.mktemp("bucket"))


def test_who_initiated_it(archive: Archive) -> None:
    """The first question: the originator, by which evidence, and the people behind the run."""
    (row,) = archive.rows("initiator", txn=archive.world.session.txn)
    assert (row["originator"], row["evidence"], row["assurance"]) == (
        "https://ci.example#repo:acme/shop",
        "oidc",
        "attested",
    )
    assert json.loads(row["accountable"]) == ["gh:actor_id:1"]


def test_which_downstream_agents_did_what(archive: Archive) -> None:
    """The second: every operation, by who acted, with its verdict and where it is recorded."""
    rows = archive.rows("downstream", txn=archive.world.session.txn)
    assert [(row["text"], row["verdict"], row["outcome"]) for row in rows if "DROP" in row["text"]] == [
        ("DROP TABLE orders", "block", "refused"),
        ("DROP TABLE orders", "forward", "ok"),
    ]
    assert len(rows) == 6
    assert {row["actor"] for row in rows} == {CHILD}
    assert {row["chain"] for row in rows} == {f"https://ci.example#repo:acme/shop > {CHILD}"}
    for row in rows:  # the pointer leads to the very frame
        lines = gzip.decompress((archive.folder / row["segment"]).read_bytes()).decode().splitlines()
        (frame,) = [line for line in map(json.loads, lines) if line.get("seq") == row["frame"]]
        assert (frame["kind"], frame["text"]) == ("operation", row["text"])


def test_was_each_step_approved_and_logged(archive: Archive) -> None:
    """The third: none required, approved by whom, or refused; and each is in the log."""
    rows = archive.rows("approved", txn=archive.world.session.txn)
    told = {(row["step"], row["approval"], row["people"]) for row in rows}
    assert ("session.granted", "none required", "") in told or ("session.granted", "none required", None) in told
    assert ("operation.ran", "approved", "dora") in told
    assert any(row["approval"] == "refused" for row in rows)
    assert all(row["logged"] for row in rows)


def test_who_can_reach_what(archive: Archive) -> None:
    """By what was granted: one line an identity, target and login."""
    (row,) = archive.rows("reach")
    assert (row["actor"], row["target"], row["principal"], row["sessions"]) == (CHILD, "orders-prod", "app_rw", 1)


def test_everything_under_a_chain(archive: Archive) -> None:
    """In order, and each fact once although its object is there twice."""
    rows = archive.rows("under_chain", txn=archive.world.session.txn)
    assert [row["name"] for row in rows].count("connection.opened") == 2
    assert len({row["uid"] for row in rows}) == len(rows) == 11
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


@pytest.mark.parametrize("identity", [CHILD, "https://ci.example#repo:acme/shop"])
def test_everything_that_an_identity_did(archive: Archive, identity: str) -> None:
    """As the actor, and as whoever is above it in the chain: the originator cannot hide behind a child."""
    assert len(archive.rows("identity", identity=identity)) == 11
    assert archive.rows("identity", identity="somebody else") == []


def test_approvals_by_approver_and_how_fast(archive: Archive) -> None:
    """A click within a second is no review: the query shows it."""
    (row,) = archive.rows("approvals")
    assert (row["person"], row["approved"], row["refused"]) == ("dora", 1, 0)
    assert row["fastest_s"] == row["median_s"] == row["slowest_s"] == 90


def test_break_glass(archive: Archive) -> None:
    """What rested on a rule that is for emergencies."""
    (row,) = archive.rows("break_glass")
    assert (row["rules"], row["text"]) == ("break-glass-drop", "DROP TABLE orders")
    assert archive.rows("break_glass", rule="nothing") == []


def test_denied_then_allowed(archive: Archive) -> None:
    """Refused, the rules changed, and it ran a minute later."""
    rows = archive.rows("denied_then_allowed")
    assert [(row["denied_text"], row["allowed_text"]) for row in rows] == [("DROP TABLE orders", "DROP TABLE orders")]
    assert archive.rows("denied_then_allowed", minutes=0) == []


@pytest.mark.parametrize("table", ["public.customers", "CUSTOMERS"])
def test_statements_that_touch_a_table(archive: Archive, table: str) -> None:
    """By what the parser found, not by a word in the text."""
    assert [row["text"] for row in archive.rows("table", table=table)] == ["SELECT email FROM customers"]
    assert archive.rows("table", table="nothing") == []


def test_unmasked_access(archive: Archive) -> None:
    """A column that a mask rule names was read, and no mask applied."""
    assert [row["text"] for row in archive.rows("unmasked")] == ["SELECT email FROM customers"]


def test_opaque_share(archive: Archive) -> None:
    """One of five operations that ran could not be read."""
    (row,) = archive.rows("opaque_share")
    assert (row["operations"], row["opaque"], float(row["share_percent"])) == (5, 1, 20.0)


def test_dormant_grants(archive: Archive) -> None:
    """Granted and never used; by the row's newest change, which granted it."""
    assert [row["session_id"] for row in archive.rows("dormant_grants")] == ["ses_01m6dshkc8w586sj5sp0arcw4h"]


def test_the_frames_of_a_session(archive: Archive) -> None:
    """One session's recordings, from its own objects alone."""
    rows = archive.rows("session", session=archive.session)
    assert [row["kind"] for row in rows].count("open") == 2
    assert [row["seq"] for row in rows[:3]] == [1, 2, 3]


def test_a_word_in_an_operation(archive: Archive) -> None:
    """Full text without Athena, in any case."""
    assert len(archive.rows("search", text="drop table")) == 2


def test_an_event_that_never_arrived_shows(archive: Archive, tmp_path: Path) -> None:
    """Attack: an object of events is kept away. Its numbers are missing among its writer's."""
    assert archive.rows("untold") == []
    for path in sorted(archive.folder.rglob("events/v1/**/*.gz")):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        kept = tmp_path / path.relative_to(archive.folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(gzip.compress(b"".join(lines[:2] + lines[4:])))
    (row,) = replace(archive, folder=tmp_path).rows("untold")
    assert (row["writer"], row["missing"]) == ("boot_1", 2)


def test_every_query_was_run_here() -> None:
    """A query that no test runs is a query that nobody knows."""
    text = Path(__file__).read_text()
    assert [name for name in names() if f'rows("{name}"' not in text] == []


# -- what a stranger wrote -----------------------------------------------------------------------------------------


def test_csv_has_no_formula_and_the_terminal_no_escape(archive: Archive) -> None:
    """Attack: a statement that is a spreadsheet's formula, or an escape sequence, is read by an auditor."""
    _, shown, _ = archive.run("search", "--param", "text=pwned")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    _, text, _ = archive.run("search", "--param", "text=pwned", "--csv")
    (header, row) = list(csv.reader(io.StringIO(text)))
    assert tuple(header) == read_query("search").columns
    assert "\x1b" not in text
    assert not row[header.index("text")].startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize(
    "value", ["' OR 1=1 --", "x'; ATTACH 'evil' AS e; --", "x UNION SELECT * FROM read_text('/etc/passwd')"]
)
def test_a_parameter_is_never_a_part_of_the_text(archive: Archive, value: str) -> None:
    """Attack: SQL in a value. It is compared, and matches nothing."""
    assert archive.rows("identity", identity=value) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("reach", "since=2026-13-01"),
        ("reach", "since=yesterday"),
        ("reach", "nothing=1"),
        ("under_chain", "txn=x"),
        ("session", "session=../../etc"),
        ("denied_then_allowed", "minutes=-1"),
        ("search", "text=\x1b"),
        ("search", "text="),
        ("../../x", "a=b"),
    ],
)
def test_what_is_not_of_its_kind_is_refused_before_anything_runs(archive: Archive, query: str, param: str) -> None:
    """A wrong day would silently be an empty answer, which an auditor takes for none."""
    code, _, err = archive.run(query, "--param", param)
    assert code == 64, err


def test_a_line_that_is_no_json_stops_the_query(archive: Archive, tmp_path: Path) -> None:
    """Attack: damage an object, so that the facts in it are skipped."""
    key = next(iter(archive.world.stores.objects.keys("events/")))
    path = tmp_path / key
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b'{"v":1,"uid"\n'))
    code, _, _ = replace(archive, folder=tmp_path).run("reach")
    assert code == 65


def test_only_keys_of_ours_are_read_and_no_link_is_followed(archive: Archive, tmp_path: Path) -> None:
    """Attack: a copy in which a link leads to the auditor's own files, or a file lies under a name of nobody's."""
    hour = tmp_path / "events/v1/date=2026-11-02/hour=09"
    hour.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(gzip.compress(b"not json"))
    (hour / "boot_1-01m6dshkc8w586sj5sp0arcw4h.ndjson.gz").symlink_to(secret)
    (hour / "x'); ATTACH 'y' --.ndjson.gz").write_bytes(gzip.compress(b"not json"))
    assert replace(archive, folder=tmp_path).rows("reach") == []


def test_a_copy_with_a_quote_in_its_path_is_read(archive: Archive, tmp_path: Path) -> None:
    """Attack: a folder's name that ends the list of files in the statement."""
    place = tmp_path / "it's'], x=['"
    copy_bucket(archive.world.stores.objects, place)
    assert len(replace(archive, folder=place).rows("reach")) == 1


def test_days_bound_what_is_read(archive: Archive) -> None:
    """A day outside has nothing, and its objects are not opened."""
    day = (START + timedelta(days=1)).date().isoformat()
    code, out, err = archive.run("under_chain", "--json", "--param", f"txn={archive.world.session.txn}",
                                 "--param", f"since={day}", "--param", f"until={day}")  # fmt: skip
    assert (code, json.loads(out)["rows"]) == (0, [])
    assert "0 objects" in err


def test_more_rows_than_asked_for_is_said(archive: Archive) -> None:
    """A short answer must not look like a whole one."""
    code, out, err = archive.run("under_chain", "--json", "--limit", "2", "--param", f"txn={archive.world.session.txn}")
    assert (code, json.loads(out)["truncated"], len(json.loads(out)["rows"])) == (0, True, 2)
    assert "more than 2 rows" in err


# -- the files -----------------------------------------------------------------------------------------------------


def _sources() -> list[Path]:
    return sorted(folder().glob("*.sql"))


@pytest.mark.parametrize("path", _sources(), ids=lambda path: path.stem)
def test_a_query_parses_as_athenas_sql_and_gives_its_columns(path: Path) -> None:
    """sqlglot's athena dialect reads it; what it selects is what its comments promise."""
    query = parse_query(path.read_text())
    assert query.name == path.stem
    (parsed,) = sqlglot.parse(query.text, dialect="athena")
    assert isinstance(parsed, exp.Select)
    assert tuple(parsed.named_selects) == query.columns
    places = list(parsed.find_all(exp.Placeholder))
    assert len(places) == len(query.order)
    assert all(place.find_ancestor(exp.Where) for place in places), "Athena takes parameters in WHERE alone"


@pytest.mark.parametrize("path", _sources(), ids=lambda path: path.stem)
def test_every_read_of_a_table_is_bounded_by_its_partitions(path: Path) -> None:
    """An injected or projected partition that no filter names is an error in Athena, or every object of every year."""
    parsed = sqlglot.parse_one(parse_query(path.read_text()).text, dialect="athena")
    for table in parsed.find_all(exp.Table):
        if table.name not in TABLE_COLUMNS:
            continue
        where = table.find_ancestor(exp.Select).args["where"].sql()  # type: ignore[union-attr]
        assert ("session_id = ?" in where) if table.name == "recordings" else ("day BETWEEN ? AND ?" in where)


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.sql")), ids=lambda path: path.stem)
def test_a_table_parses_and_needs_no_crawler(path: Path) -> None:
    """Partitions are projected: a crawler would be a part that can fall behind."""
    text = path.read_text()
    (parsed,) = sqlglot.parse(text, dialect="athena")
    assert isinstance(parsed, exp.Create)
    assert "'projection.enabled' = 'true'" in text
    partitions = re.findall(r"`(\w+)` string", text.partition("PARTITIONED BY")[2].partition(")")[0])
    template = re.search(r"'storage.location.template' = '([^']+)'", text)
    assert template is not None
    assert set(re.findall(r"\$\{(\w+)\}", template[1])) == {*partitions, *re.findall(r"\$\{([A-Z_]+)\}", template[1])}
    assert all(f"'projection.{partition}.type'" in text for partition in partitions)


@pytest.mark.parametrize("name", sorted(TABLE_COLUMNS))
def test_the_local_tables_have_athenas_columns(name: str) -> None:
    """A column that one of them lacks would make one text two queries."""
    text = (TABLES / f"{name}.sql").read_text()
    declared = dict(re.findall(r"^  `(\w+)` ([a-z<>]+),?$", text, re.MULTILINE))
    kinds = {"string": "VARCHAR", "bigint": "BIGINT", "array<string>": "VARCHAR[]", "boolean": "BOOLEAN"}
    assert {column: kinds[kind] for column, kind in declared.items()} == dict(TABLE_COLUMNS[name])


def test_compaction_keeps_every_column_and_each_uid_once(archive: Archive) -> None:
    """A column that it forgot would be lost to whoever reads the index."""
    text = (ROOT / "infra/athena/compaction/events.sql").read_text()
    query = parse_query(text)
    parsed = sqlglot.parse_one(query.text, dialect="athena")
    assert isinstance(parsed, exp.Insert)
    selected = parsed.expression.named_selects
    declared = re.findall(r"^  `(\w+)` ", (TABLES / "events_compacted.sql").read_text(), re.MULTILINE)
    assert selected == [*declared, "day"], "the partition is the last column of an INSERT"
    assert {column.name for column in EVENT_COLUMNS} < set(selected)
    as_query = query.text.partition("\n")[2]
    import duckdb

    from countersign.query_local import files_of, prepare

    day = {"since": "2026-01-01", "until": "2030-01-01"}
    with duckdb.connect() as connection:
        prepare(connection, {"events": files_of(archive.folder, "events", day)})
        rows = connection.execute(as_query, [START.date().isoformat()]).fetchall()
    assert len(rows) == len({row[1] for row in rows}) == 11


def test_a_query_says_what_it_reads() -> None:
    """What is fetched from the bucket is what the query names, and no more."""
    query = read_query("dormant_grants")
    assert tables_of(query) == ["events", "sessions"]
    assert prefixes(query, {}, ["2026-11-02"]) == ["events/v1/date=2026-11-02/", "items/v1/sessions/2026-11-02/"]
    assert prefixes(read_query("session"), {"session": "ses_1"}, []) == ["rec/v1/ses_1/"]


@pytest.mark.parametrize(
    "source",
    ["SELECT 1", "-- x: y\nSELECT :a", "-- x: y\n-- param a text\nSELECT 1", "-- x: y\n-- param a sql\nSELECT :a"],
)
def test_a_file_whose_comments_do_not_fit_its_text_is_none(source: str) -> None:
    """A parameter that the comments do not name has no kind, so nothing would check it."""
    with pytest.raises(ValueError, match="comments"):
        parse_query(source)


def test_a_colon_in_quotes_is_no_parameter() -> None:
    """'sql:opaque' is a text."""
    query: NamedQuery = parse_query("-- x: y\n-- param a text\nSELECT 'sql:opaque' FROM t WHERE b = :a AND c = ':a'")
    assert query.text == "SELECT 'sql:opaque' FROM t WHERE b = ? AND c = ':a'"
    assert [parameter.kind for parameter in query.parameters] == [Kind.TEXT]
