"""What came of a run: every language's outcome, reason and cost, and sums that are those of the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flows.jobs import Selected
from flows.pipeline import Pipeline
from flows.preflight import preflight
from flows.runs import Session, left_to_do, run_plainly, session
from flows.settings import Settings, load_settings
from flows.show import forecast_table, shards_table, stdout
from flows.status import forecast, write_shards
from flows.summary import LISTED, Line, Summary, lines, summarize
from flows.wiring import open_workspace
from models import tables as t
from models.errors import SetupError
from models.pool import History, ShardLine, Spent
from tasks.generate import load_shard
from tasks.step import perform
from tests import fakes


def select_all(catalog: Path, settings: Settings) -> list[Selected]:
    from flows.cli_run import select_from

    return select_from(catalog, settings, [], [])


def carry_out(catalog: Path, settings: Settings) -> Session:
    with session(settings, "run", {"catalog": str(catalog)}) as run:
        run_plainly(run, left_to_do(run, select_all(catalog, settings)))
    return run


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Settings, Session, Session]]:
    """A catalog of which one language works and one fails, dubbed twice; and what it was told to the webhook."""
    folder = tmp_path_factory.mktemp("summary")
    with pytest.MonkeyPatch.context() as patch:
        fakes.install_while(patch)
        patch.setenv("INFINIDUB_SECRETS__WEBHOOK", "http://127.0.0.1:9/s3cret")
        patch.setattr("flows.notify.WAITS_S", ())
        catalog = fakes.series(folder / "series", languages=["es", "it"])
        settings = load_settings(flags={"out": str(folder / "out"), "engines.generator": "pulse", "multi": False,
                                        "check_speech": False, "price_cpu": 3.6,
                                        "prices": {"here": 36.0, "gpu": 3600.0}})
        yield catalog, settings, carry_out(catalog, settings), carry_out(catalog, settings)


def by_language(summary: Summary) -> dict[str, Line]:
    return {line.language: line for line in summary.lines}


def test_the_summary_says_what_was_dubbed_failed_and_why(ran: tuple[Path, Settings, Session, Session]) -> None:
    first = by_language(summarize(ran[2]))
    assert {tag: line.outcome for tag, line in first.items()} == {"es": "dubbed", "it": "failed", "": "shared"}
    assert "no Italian today" in first["it"].why
    assert "s of picture generated" in first["es"].why


def test_what_is_done_is_skipped_the_next_night_and_costs_nothing(ran: tuple[Path, Settings, Session, Session]) -> None:
    again = by_language(summarize(ran[3]))
    assert {tag: again[tag].outcome for tag in ("es", "it")} == {"es": "skipped", "it": "failed"}
    assert (again["es"].cpu_s, again["es"].gpu_s, again["es"].cost) == (0, 0, 0)


def test_the_sums_are_those_of_the_tables(ran: tuple[Path, Settings, Session, Session]) -> None:
    run = ran[2]
    with run.space.ledger.session() as open_session:
        cpu = open_session.scalar(sa.select(sa.func.sum(t.Execution.cpu_seconds)).where(
            t.Execution.run_id == run.run_id))
    told = summarize(run)
    assert told.total("cpu_s") == pytest.approx(cpu)
    assert told.total("cost") == pytest.approx(cpu * 3.6 / 3600 + told.total("gpu_s") * 36.0 / 3600)
    assert run.summary()["costs"] == told.to_json()
    assert json.loads(json.dumps(told.to_json()))["languages"][0]["outcome"] == "failed"


def test_who_cannot_be_told_is_a_warning_without_the_address(ran: tuple[Path, Settings, Session, Session]) -> None:
    (words,) = [words for words in ran[2].warnings if "webhook" in words]
    assert "could not be reached" in words
    assert "s3cret" not in words


def test_each_pool_has_its_price_and_lost_attempts_are_shown() -> None:
    settings = load_settings(flags={"prices": {"gpu": 3.6, "here": 36.0}, "price_cpu": 0.36})
    outcomes: Any = {("s/e1", "es"): ("dubbed", "ok"), ("s/e1", "fr"): ("failed", "a\nb")}
    took = [Spent("s/e1", "es", "gpu", 1000.0, 100.0, 0.0, 90.0), Spent("s/e1", "es", "here", 10.0, 0.0, 0.0, 5.0),
            Spent("s/e1", "es", "", 0.0, 0.0, 50.0), Spent("s/e1", "", "", 0.0, 0.0, 1000.0),
            Spent("s/e1", "es", "free", 7.0, 0.0, 0.0)]
    summary = Summary(lines(outcomes, took, settings))
    failed, dubbed, shared = summary.lines
    assert (failed.outcome, failed.why, failed.cost) == ("failed", "a b", 0)
    assert (dubbed.gpu_s, dubbed.lost_s, dubbed.startup_s, dubbed.cpu_s) == (1017, 100, 95, 50)
    assert dubbed.cost == pytest.approx(1.0 + 0.1 + 0.005)
    assert (shared.outcome, shared.cpu_s, shared.cost) == ("shared", 1000, pytest.approx(0.1))
    assert summary.total("cost") == pytest.approx(1.205)


def test_the_report_for_people_is_short_and_holds_no_foreign_markup() -> None:
    failed = [Line("s/e", "es", "failed", "x | y <img src=a>")] * (LISTED + 7)
    markdown = Summary((*failed, Line("s/e", "fr", "skipped", "nothing changed"))).markdown
    assert "0 dubbed, 1 skipped, 507 failed" in markdown
    assert "7 more lines" in markdown
    assert markdown.count("\n| s/e |") == LISTED
    assert "<img" not in markdown
    assert "x \\| y" in markdown
    assert "nothing changed" not in markdown


# -- beforehand, and meanwhile ----------------------------------------------------------------------------------------


def test_a_plan_says_gpu_seconds_and_their_price(ran: tuple[Path, Settings, Session, Session], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, settings, _, _ = ran
    other = settings.model_copy(update={"seed": 7})  # other pictures: planned anew, none is made
    with session(other, "run", {}) as run:
        left_to_do(run, select_all(catalog, other))
        pool = other.model_copy(update={"dispatch": "prefect", "gpu_pool": "gpu"})
    space = open_workspace(other)
    one = select_all(catalog, other)[0]
    work = space.work(run.run_id, episode=one.job.id, language="es")
    pipeline = Pipeline(space, one.job, perform)
    prepared = pipeline.prepare(work)
    _, speech = pipeline._speech(work, {}, prepared, "es", pipeline._cast(work, prepared.transcript, "es"))
    pipeline._plan(work, {}, prepared, speech)

    (row, failing) = forecast(space, [one])
    assert (row["shots_to_run"], row["gpu_basis"]) == (2, "measured")  # the catalog's first run has taught it
    monkeypatch.setattr("flows.status.history", lambda _ledger, _engine: History())
    (row, failing) = forecast(space, [one])
    assert (row["gpu_s"], row["gpu_basis"], row["gpu_cost"]) == (100.0, "guess", 1.0)  # 100 frames, $ 36 an hour
    assert failing["gpu_s"] is None
    (pooled, _) = forecast(open_workspace(pool), [one])
    assert (pooled["gpu_s"], pooled["gpu_cost"]) == (190.0, 190.0)  # one short shard, with its start-up
    with stdout.capture() as shown:
        stdout.print(forecast_table([row, failing]))
    assert "1:40 (guess)" in shown.get()
    (path,) = write_shards(space, [one], tmp_path)
    assert [request.shot for request in load_shard(path).requests] == ["S0001", "S0002"]


def test_status_shows_live_and_failed_shards_and_counts_all() -> None:
    def shard(name: str, state: Any, **changes: Any) -> ShardLine:
        return ShardLine(**{"shard": f"shard-{name}", "catalog": "c", "episode": "s/e1", "language": "es",
                            "state": state, "attempt": 2, "shots": 3, "frames": 2000, "frames_made": 504, "chunks": 7,
                            "chunks_done": 9, "chunks_total": 28, "estimate_s": 1800.0, "gpu_seconds": 754.0,
                            "beat_age_s": 3.0, "owner": "node-1/pod-x/7", "error_class": "", "error": "", **changes})

    shards = [shard("aaaa", "running"), shard("bbbb", "queued", beat_age_s=None, owner=""),
              shard("cccc", "failed", owner="", error_class="EngineError", error="NaN [red]"), shard("dddd", "done")]
    with stdout.capture() as shown:
        stdout.print(shards_table(shards))
    text = shown.get()
    for words in ("aaaa", "9 of 28", "2000", "12:34", "0:03 ago", "node-1/pod-x/7", "EngineError: NaN [red]",
                  "1 running, 1 queued, 1 failed, 1 done"):
        assert words in text
    assert "dddd" not in text


def test_on_a_pool_the_generator_need_not_be_here(ran: tuple[Path, Settings, Session, Session],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, settings, run, _ = ran
    todo = [Selected(one.job, ("es",)) for one in select_all(catalog, settings)]
    asked: list[str] = []

    def look(_space: object, port: str, _name: str, **_options: object) -> None:
        asked.append(port)
        if port == "generator":
            raise SetupError("its weights are not here")

    monkeypatch.setattr("flows.preflight.check_engine", look)
    with pytest.raises(SetupError, match="weights"):
        preflight(run.space, todo)
    monkeypatch.setattr(run.space, "settings", settings.model_copy(update={"dispatch": "prefect"}))
    asked.clear()
    preflight(run.space, todo)
    assert "generator" not in asked
    assert "synthesizer" in asked
