"""What gc removes, and above all what it leaves; over files and a bucket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

import tasks.gc
from flows.cli import run_command
from models import tables as t
from models.recipe import sha256
from models.records import Artifact, Record, Request
from tasks.gc import NEEDLESS, Removed, collect
from tasks.step import Work, find, perform, perform_many, step
from tasks.store import FileStore, Store
from tests.s3_server import CREDENTIALS, client, s3_server
from tests.shard_rows import enqueue, packed, recipe_of

TEXT = "text/plain"


class Ask(Request):
    given: Artifact


class Answer(Record):
    file: Artifact
    parts: tuple[Artifact, ...] = ()


@step("film.part", version=1, result=Answer, unit="shot")
def make_part(work: Work, request: Ask) -> Answer:
    return Answer(file=work.store.put_bytes(b"part of " + work.store.path(request.given).read_bytes(), TEXT))


@step("film", version=1, result=Answer)
def make_film(work: Work, request: Ask) -> Answer:
    parts = perform_many(work, make_part, {"a": request}).values()
    return Answer(file=work.store.put_bytes(b"film of " + work.store.path(request.given).read_bytes(), TEXT),
                  parts=tuple(part.file for part in parts))


@step("cut", version=1, result=Answer)
def make_cut(work: Work, request: Ask) -> Answer:
    return Answer(file=work.store.put_bytes(b"cut of " + work.store.path(request.given).read_bytes(), TEXT))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        client(address).create_bucket(Bucket="store")
        yield address


@pytest.fixture(params=["files", "bucket"])
def work(request: pytest.FixtureRequest, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    if request.param == "files":
        return work
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    from tasks.s3 import S3Store

    return replace(work, store=S3Store("store", sha256(str(tmp_path).encode())[:12], tmp_path / "here",
                                       endpoint=request.getfixturevalue("server")))


@pytest.fixture(autouse=True)
def all_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores know no way to make an object old; the tests of ages put the limit back."""
    monkeypatch.setattr(tasks.gc, "UNFINISHED_S", -1.0)


def keys(store: Store) -> set[str]:
    return {one.key for one in store.objects()}


def key(artifact: Artifact) -> str:
    return f"artifacts/{artifact.sha256[:2]}/{artifact.sha256}"


def counts(removed: list[Removed]) -> dict[str, tuple[int, int]]:
    return {one.kind: (one.count, one.bytes) for one in removed if one.count}


def end(work: Work) -> None:
    work.ledger.end_run(work.run_id, "done")


def age(work: Work, days: float) -> None:
    """All that was done was done so many days ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    with work.ledger.session() as session:
        session.execute(sa.update(t.Result).values(created=then))
        session.execute(sa.update(t.Execution).values(started=then, ended=then))


def deliver(work: Work, file: Artifact) -> None:
    work.ledger.save([t.Delivery(path="/out/film.mp4", episode=work.episode, language=work.language,
                                 sha256=file.sha256, record={}, updated=datetime.now(UTC))])


def test_only_what_no_result_was_made_of_or_holds_goes(work):
    given = work.store.put_bytes(b"a film", TEXT)
    request = Ask(given=given)
    made = perform(work, make_film, request)
    stray = work.store.put_bytes(b"what a killed step left", TEXT)
    end(work)
    before = keys(work.store)
    told = collect(work.store, work.ledger, delete=False)
    assert keys(work.store) == before
    assert collect(work.store, work.ledger, delete=True) == told
    assert counts(told) == {NEEDLESS: (1, stray.size)}
    assert keys(work.store) == before - {key(stray)}
    assert key(given) in keys(work.store)
    assert find(work, make_film, request) == made
    assert counts(collect(work.store, work.ledger, delete=True)) == {}


def test_a_result_that_was_forgotten_frees_its_files(work):
    request = Ask(given=work.store.put_bytes(b"a film", TEXT))
    made = perform(work, make_cut, request)
    record = work.ledger.find(make_cut.recipe(request))
    work.ledger.forget(make_cut.recipe(request), record)
    end(work)
    collect(work.store, work.ledger, delete=True)
    assert not keys(work.store) & {key(made.file), key(record)}
    again = replace(work, run_id=work.ledger.begin_run("test", {}, {}))
    given = work.store.put_bytes(b"a film", TEXT)
    assert perform(again, make_cut, Ask(given=given)) == made  # rows went with the files: it is all made anew
    assert work.store.has(made.file)


def test_while_a_run_is_under_way_no_file_goes(work):
    stray = work.store.put_bytes(b"not yet recorded", TEXT)
    assert NEEDLESS not in {one.kind for one in collect(work.store, work.ledger, delete=True)}
    assert work.store.has(stray)
    end(work)
    collect(work.store, work.ledger, delete=True)
    assert not work.store.has(stray)


def test_what_is_young_stays(work, monkeypatch):
    monkeypatch.undo()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    stray = work.store.put_bytes(b"given, and not yet used", TEXT)
    kept(work, sha256(b"a shot"))
    end(work)
    assert counts(collect(work.store, work.ledger, delete=True, unused_days=1)) == {}
    assert work.store.has(stray)


def test_a_run_cannot_begin_while_files_go(work, monkeypatch):
    work.store.put_bytes(b"stray", TEXT)
    end(work)
    order: list[str] = []
    delete = type(work.store).delete

    def slow(store: Store, gone: object) -> None:
        if "begin" not in [thread.name for thread in threading.enumerate()] and not order:
            threading.Thread(target=begin, name="begin").start()
            time.sleep(0.3)
        delete(store, gone)
        order.append("deleted")

    def begin() -> None:
        work.ledger.begin_run("test", {}, {})
        order.append("begun")

    monkeypatch.setattr(type(work.store), "delete", slow)
    collect(work.store, work.ledger, delete=True)
    for thread in threading.enumerate():
        if thread.name == "begin":
            thread.join()
    assert order == ["deleted"] * 3 + ["begun"]


# -- results that nobody used -----------------------------------------------------------------------------------------


def test_results_go_when_nobody_used_them_unless_something_delivered_was_made_of_them(work):
    given, other = work.store.put_bytes(b"delivered", TEXT), work.store.put_bytes(b"other", TEXT)
    film = perform(work, make_film, Ask(given=given))
    cut = perform(work, make_cut, Ask(given=film.file))
    perform(replace(work, language="fr"), make_film, Ask(given=other))
    deliver(work, cut.file)
    age(work, days=40)
    end(work)
    assert counts(collect(work.store, work.ledger, delete=True)) == {}
    assert counts(collect(work.store, work.ledger, delete=True, unused_days=60)) == {}
    before = keys(work.store)
    told = collect(work.store, work.ledger, delete=False, unused_days=30)
    assert keys(work.store) == before
    assert collect(work.store, work.ledger, delete=True, unused_days=30) == told
    assert counts(told)["results that were not used for 30 days"] == (2, 0)  # the film, and its part
    assert counts(told)["files of results that were not used for 30 days"][0] == 5  # with its source
    for what, request in ((make_film, given), (make_part, given), (make_cut, film.file)):
        assert find(work, what, Ask(given=request)) is not None
    assert find(work, make_film, Ask(given=other)) is None
    assert find(work, make_part, Ask(given=other)) is None


def test_a_result_that_was_taken_over_lately_is_used(work):
    request = Ask(given=work.store.put_bytes(b"a film", TEXT))
    made = perform(work, make_film, request)
    age(work, days=40)
    perform(work, make_film, request)
    end(work)
    assert counts(collect(work.store, work.ledger, delete=True, unused_days=30)) == {}
    assert find(work, make_film, request) == made
    assert find(work, make_part, request) is not None  # an edit takes it over


# -- unfinished work --------------------------------------------------------------------------------------------------


def kept(work: Work, recipe: str) -> None:
    folder = work.store.checkpoint(recipe)
    (folder / "chunk-0000.mkv").write_bytes(b"frames")
    (folder / "manifest.json").write_bytes(b"{}")
    work.store.keep(recipe, ["chunk-0000.mkv"])


def test_checkpoints_go_with_their_shot_s_result_and_stay_without(work):
    request = Ask(given=work.store.put_bytes(b"a film", TEXT))
    perform(work, make_cut, request)
    kept(work, make_cut.recipe(request))
    kept(work, sha256(b"unfinished"))
    assert counts(collect(work.store, work.ledger, delete=True)) == {"files of checkpoints": (2, 8)}  # runs or not
    assert {one.split("/")[1] for one in keys(work.store) if "checkpoints" in one} == {sha256(b"unfinished")}


def test_checkpoints_that_were_left_alone_go_unless_a_live_shard_has_the_shot(work, monkeypatch):
    monkeypatch.setattr(tasks.gc, "ABANDONED_S", -1.0)
    enqueue(work.ledger, packed("a", ["S0001"]), run_id=work.run_id)
    alive = recipe_of("S0001")
    for recipe in (alive, sha256(b"left alone")):
        kept(work, recipe)
    end(work)
    collect(work.store, work.ledger, delete=True)
    assert {one.split("/")[1] for one in keys(work.store) if "checkpoints" in one} == {alive}


def test_uploads_that_never_ended_go(work):
    end(work)
    if isinstance(work.store, FileStore):
        left = work.store.root / "artifacts" / "ab" / ".partial-abcdefgh"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
    else:
        client(work.store.endpoint).create_multipart_upload(
            Bucket="store", Key=f"{work.store.prefix}artifacts/ab/{'ab' * 32}")
    assert [one.count for one in collect(work.store, work.ledger, delete=True) if one.count] == [1]
    assert keys(work.store) == set()


# -- the verb ---------------------------------------------------------------------------------------------------------


def test_the_verb_says_what_would_go_and_removes_it(tmp_path, capsys):
    def verb(*arguments: str) -> dict[str, object]:
        code = run_command(["gc", "--state", str(tmp_path / "state"), "--json", *arguments])
        return {"code": code, **json.loads(capsys.readouterr().out)}

    assert verb()["code"] == 2  # nothing was dubbed here
    (tmp_path / "state").mkdir()
    stray = FileStore(tmp_path / "state").put_bytes(b"stray", TEXT)
    place = FileStore(tmp_path / "state").path(stray)
    told = verb("--dry-run")
    assert (told["code"], told["busy"]) == (0, False)
    assert place.exists()
    done = verb()
    assert done["removed"] == told["removed"]
    assert {"kind": NEEDLESS, "count": 1, "bytes": 5} in done["removed"]
    assert not place.exists()
    run_command(["gc", "--state", str(tmp_path / "state"), "--unused-days", "30"])
    assert "results that were not used for 30 days" in capsys.readouterr().out
