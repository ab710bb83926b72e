"""The ledger on SQLite and on PostgreSQL: one suite, real servers."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import TypeAdapter, ValidationError

import models.migrations
from models import tables as t
from models.errors import InfrastructureError, InputError
from models.recipe import sha256
from models.records import Artifact, LineEdit, LineId, ShotId
from tasks.ledger import Attempt, Ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/l.db"
    return request.getfixturevalue("postgresql")


def blob(text: str) -> Artifact:
    return Artifact(sha256=sha256(text.encode()), size=len(text), media_type="text/plain")


def finish(ledger: Ledger, run: str, recipe: str, answer: str) -> Artifact:
    row = ledger.begin(run, Attempt(recipe=recipe, step="s"))
    result = t.Result(recipe=recipe, step="s", version=1, request={})
    return ledger.finish(row, result, blob(answer), {"a" * 64}, [], 0.1)


def test_migrations_make_exactly_the_tables_of_the_code(url):
    ledger = Ledger(url)
    with ledger.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), t.Table.metadata)
    assert difference == []


def migrate(ledger: Ledger, move, revision: str) -> None:
    config = alembic.config.Config(Path(models.migrations.__file__).with_name("alembic.ini"))
    config.set_main_option("script_location", str(Path(models.migrations.__file__).parent))
    with ledger.engine.begin() as connection:
        config.attributes["connection"] = connection
        move(config, revision)


def test_a_database_of_before_the_pool_is_brought_up_to_date_with_its_rows(url):
    ledger = Ledger(url)
    migrate(ledger, alembic.command.downgrade, "0001")
    columns = {"runs": {"id", "command", "parameters", "environment", "flow_run", "state", "failures", "started",
                        "ended"},
               "shards": {"id", "run_id", "episode", "language", "shots", "state", "updated"}}
    with ledger.engine.begin() as connection:
        for table, names in columns.items():
            assert {column["name"] for column in sa.inspect(connection).get_columns(table)} == names
        now = "2026-01-01 00:00:00+00:00" if connection.dialect.name == "postgresql" else "2026-01-01 00:00:00.000000"
        connection.execute(sa.text("INSERT INTO runs VALUES ('r', 'run', '{}', '{}', NULL, 'running', NULL, "
                                   f"'{now}', NULL)"))
        for state in ("running", "done"):
            connection.execute(sa.text("INSERT INTO shards VALUES (:state, 'r', 's/e1', 'es', '[\"S0001\"]', :state, "
                                       f"'{now}')"), {"state": state})
    ledger = Ledger(url)
    with ledger.session() as session:
        rows = {row.id: row for row in session.scalars(sa.select(t.ShardRow))}
        assert {name: row.state for name, row in rows.items()} == {"running": "failed", "done": "done"}
        assert (rows["done"].shots, rows["done"].attempt, rows["done"].lease_until) == (["S0001"], 0, None)
        assert (session.get_one(t.Run, "r").catalog, session.get_one(t.Run, "r").state) == ("", "running")
    assert ledger.keep_run("r", 60)


def test_the_first_writer_of_a_recipe_wins_and_the_second_adopts_its_result(url):
    ledger = Ledger(url)
    run = ledger.begin_run("test", {}, {})
    assert finish(ledger, run, "r" * 64, "first") == blob("first")
    assert finish(ledger, run, "r" * 64, "second") == blob("first")
    with ledger.session() as session:
        outcomes = session.scalars(sa.select(t.Execution.outcome).order_by(t.Execution.id)).all()
        attempts = session.scalars(sa.select(t.Execution.attempt).order_by(t.Execution.id)).all()
    assert (outcomes, attempts) == (["computed", "adopted"], [1, 2])


def test_many_results_are_found_at_once(url):
    ledger = Ledger(url)
    run = ledger.begin_run("test", {}, {})
    finish(ledger, run, "r" * 64, "one")
    finish(ledger, run, "s" * 64, "two")
    asked = ["r" * 64, "s" * 64, "r" * 64, *(f"{number:064d}" for number in range(2500))]
    assert ledger.find_many(asked) == {"r" * 64: blob("one"), "s" * 64: blob("two")}
    assert ledger.find_many([]) == {}


def test_a_lost_result_is_forgotten_but_not_the_one_that_took_its_place(url):
    ledger = Ledger(url)
    run = ledger.begin_run("test", {}, {})
    finish(ledger, run, "r" * 64, "first")
    ledger.forget("r" * 64, blob("lost"))
    assert ledger.find("r" * 64) == blob("first")
    ledger.forget("r" * 64, blob("first"))
    assert ledger.find("r" * 64) is None


def test_ending_a_run_closes_what_it_left_running(url):
    ledger = Ledger(url)
    run = ledger.begin_run("test", {}, {})
    ledger.begin(run, Attempt(recipe="r" * 64, step="s"))
    ledger.end_run(run, "cancelled")
    with ledger.session() as session:
        assert session.scalars(sa.select(t.Execution.outcome)).all() == ["cancelled"]


def test_a_run_is_alive_until_it_is_closed(url):
    ledger = Ledger(url)
    run = ledger.begin_run("run", {}, {}, catalog="nightly", lease_s=60)
    assert ledger.keep_run(run, 60)
    ledger.end_run(run, "done")
    assert not ledger.keep_run(run, 60)
    with ledger.session() as session:
        row = session.get_one(t.Run, run)
        assert (row.catalog, row.state, row.lease_until) == ("nightly", "done", None)


def test_who_sweeps_learns_whether_anything_is_alive_and_keeps_runs_from_beginning(url):
    ledger = Ledger(url)
    with ledger.sweeping() as quiet:
        assert quiet
    run = ledger.begin_run("run", {}, {})
    with ThreadPoolExecutor(1) as threads:
        with ledger.sweeping() as quiet:
            assert not quiet
            begun = threads.submit(ledger.begin_run, "late", {}, {})
            ledger.end_run(run, "done")
            assert ledger.find("r" * 64) is None, "all else goes on"
            with pytest.raises(TimeoutError):
                begun.result(0.3)
        assert begun.result(60) != run
    with ledger.sweeping() as quiet:
        assert not quiet, "the late one is alive"


EDIT = LineEdit(text="hola", source="0" * 64)
LATER = LineEdit(text="buenas", source="1" * 64)


def edit(line: str, said: LineEdit) -> t.Edit:
    return t.Edit(episode="s/e1", language="es", line=line, text=said.text, source=said.source, author="ana",
                  updated=datetime.now(UTC))


def test_takes_and_edits_are_kept_per_episode_and_language(url):
    ledger = Ledger(url)
    ledger.raise_takes("s/e1", "es", ["mix", "assemble"])
    ledger.raise_takes("s/e1", "es", ["mix"])
    ledger.save([edit("L0001", EDIT)])
    ledger.save([edit("L0001", LATER)])
    assert ledger.takes("s/e1", "es") == {"mix": 2, "assemble": 1}
    assert ledger.takes("s/e1", "fr") == {}
    assert ledger.edits("s/e1", "es") == {"L0001": LATER}


def in_threads(call) -> None:
    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(call, number) for number in range(40)]:
            done.result()


def test_writers_of_the_same_lines_take_turns(url):
    ledger = Ledger(url)

    def write(number: int) -> None:
        ledger.replace_lines("s/e1", "es", [
            t.LineRow(episode="s/e1", language="es", line=f"L{line:04d}", speaker="A", text=f"{number}", start=line,
                      end=line + 1, report={}) for line in range(1 + number % 3, 6)])

    in_threads(write)
    with ledger.session() as session:
        assert len({row.text for row in session.scalars(sa.select(t.LineRow))}) == 1


def test_two_that_save_the_same_new_row_or_ask_for_the_same_step_do_not_collide(url):
    ledger = Ledger(url)

    def write(number: int) -> None:
        ledger.save([edit(f"L{number // 4:04d}", EDIT)])
        ledger.raise_takes(f"s/e{number // 8}", "es", ["mix", "assemble"] if number % 2 else ["assemble", "mix"])

    in_threads(write)
    assert len(ledger.edits("s/e1", "es")) == 10
    assert [ledger.takes(f"s/e{episode}", "es") for episode in range(5)] == [{"mix": 8, "assemble": 8}] * 5


def test_the_longest_ids_that_records_allow_have_room(url):
    ledger = Ledger(url)
    line, shot = "L" + "9" * 9 + "z" * 20, "S" + "9" * 9 + "z" * 20
    for kind, name in ((LineId, line), (ShotId, shot)):
        TypeAdapter(kind).validate_python(name)
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(name + "z")
    ledger.save([edit(line, EDIT)])
    ledger.replace_lines("s/e1", "es", [t.LineRow(episode="s/e1", language="es", line=line, speaker="A", text="hola",
                                                  start=0, end=1, report={})])
    ledger.replace_shots("s/e1", "es", [t.ShotRow(episode="s/e1", language="es", shot=shot, start=0, end=1,
                                                  kind="generate", reason="", recipe=None)])
    assert ledger.edits("s/e1", "es") == {line: EDIT}


def test_times_come_back_in_utc_whatever_the_zone_of_the_connection(postgresql):
    ledger = Ledger(postgresql)
    ledger.begin_run("test", {}, {})
    with ledger.session() as session:
        session.execute(sa.text("SET TIME ZONE 'Asia/Kolkata'"))
        assert session.scalars(sa.select(t.Run)).one().started.utcoffset() == timedelta(0)


def test_a_known_file_is_hashed_again_when_it_changes(url, tmp_path):
    ledger, file = Ledger(url), tmp_path / "film.mp4"
    file.write_bytes(b"one")
    ledger.remember_hash(file, "h" * 64)
    assert ledger.known_hash(file) == "h" * 64
    file.write_bytes(b"other")
    assert ledger.known_hash(file) is None


def test_a_file_with_a_huge_inode_number_is_remembered(url, tmp_path, monkeypatch):
    ledger, file = Ledger(url), tmp_path / "film.mp4"
    file.write_bytes(b"one")
    huge = os.stat_result([*file.stat()[:1], 2**64 - 1, *file.stat()[2:]], {"st_mtime_ns": file.stat().st_mtime_ns})
    monkeypatch.setattr("pathlib.Path.stat", lambda _path: huge)
    ledger.remember_hash(file, "h" * 64)
    assert ledger.known_hash(file) == "h" * 64


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    file.write_bytes(b"one")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        Ledger(f"sqlite:///{tmp_path}/l.db").known_hash(file)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("wrong", ["nonsense", "postgresql+psycopg://u:hunter2@h:port/x", "oracle9://u:hunter2@h/x",
                                   "mysql+pymysql://u:hunter2@h/x"])
def test_what_is_no_database_url_is_an_input_error_without_the_password(wrong):
    with pytest.raises(InputError, match="no database URL") as caught:
        Ledger(wrong)
    assert "hunter2" not in str(caught.value)


def _race(url: str, number: int, answers) -> None:
    ledger = Ledger(url)
    run = ledger.begin_run("race", {}, {})
    answers.put([finish(ledger, run, f"{recipe:064d}", f"writer {number}").sha256 for recipe in range(20)])


def test_concurrent_processes_agree_on_every_result(url):
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    writers = [spawn.Process(target=_race, args=(url, n, answers)) for n in range(3)]
    for writer in writers:
        writer.start()
    heard = [answers.get(timeout=120) for _ in writers]
    for writer in writers:
        writer.join(60)
    assert heard[0] == heard[1] == heard[2]


@pytest.mark.parametrize("url", ["postgresql+psycopg://user:hunter2@127.0.0.1:9/none",
                                 "postgresql+psycopg://user@127.0.0.1:9/none?password=hunter2&sslpassword=hunter2",
                                 "postgresql+psycopg://user:a%2Fhunter2@127.0.0.1:9/none"])
def test_a_database_that_is_not_there_is_an_infrastructure_error_without_the_password(url):
    with pytest.raises(InfrastructureError) as caught:
        Ledger(url)
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
