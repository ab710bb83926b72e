"""What many shards and large catalogs cost beside the GPUs, in one process, as Markdown tables for docs/scale.md.

    python infra/bench/scale.py queue [SHARDS] [--database URL]     tables and leases, every move of every shard
    python infra/bench/scale.py plan [EPISODES] [LANGUAGES] [SHOTS] catalog, plans, recipes, estimates and packing

Nothing is generated: requests are real records of shots that nobody makes. Processor seconds are this process's own
(a database server's come on top), for the machine may be busy with other things.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import sqlalchemy as sa
import yaml

from flows.jobs import catalog_jobs, select
from flows.settings import load_settings
from flows.status import survey
from flows.wiring import open_workspace
from models.catalog import load_catalog
from models.pool import Beat, History, Packed
from models.recipe import sha256
from models.records import (
    Artifact,
    EngineRef,
    FaceTrack,
    HeardLine,
    Shard,
    Shot,
    ShotRequest,
    Shots,
    Source,
    SpeakerTrack,
    Speech,
    SpokenLine,
)
from models.timebase import frame_to_ticks
from tasks import shards
from tasks.estimate import Estimator
from tasks.generate import generate_shot
from tasks.ledger import Ledger
from tasks.pack import bound, makespan
from tasks.plan import PlanRequest, plan

RATE = Fraction(25)
SHOT_FRAMES = 125
SHOTS_A_SHARD = 8
SLOTS = 500
TAGS = ["es", "fr", "de", "it", "pt", "nl", "pl", "cs", "sv", "da", "fi", "nb", "hu", "ro", "bg", "el", "tr", "uk",
        "ja", "ko"]
ENGINE = EngineRef(name="infinitetalk", options={"weights": "infinitetalk-480p"},
                   weights={f"wan-i2v-480p/part-{n}.safetensors": f"{n:064x}" for n in range(14)})
FILE = Artifact(sha256="f" * 64, size=10_000_000, media_type="video/mp4")
FACE = FaceTrack(id=0, boxes=tuple((n, 800, 300, 240, 240) for n in range(0, SHOT_FRAMES, 25)))


class Stopwatch:
    """Wall and processor seconds by name, and how often."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, float, float]] = {}

    @contextmanager
    def __call__(self, what: str, times: int = 1) -> Iterator[None]:
        """Time the block as `times` times `what`."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        count, before, busy = self.rows.get(what, (0, 0.0, 0.0))
        self.rows[what] = (count + times, before + time.perf_counter() - wall, busy + time.process_time() - cpu)

    def table(self) -> str:
        """Markdown."""
        rows = [f"| {what} | {count:,} | {wall:.1f} s | {cpu:.1f} s | {1000 * wall / count:.2f} ms |"
                f" {1000 * cpu / count:.2f} ms |" for what, (count, wall, cpu) in self.rows.items()]
        return "\n".join(["| what | times | wall | processor | wall each | processor each |",
                          "|---|---:|---:|---:|---:|---:|", *rows])


def peak_mb() -> float:
    """Peak resident memory of this process, in 10⁶ bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def database_mb(ledger: Ledger) -> float:
    """Size on disk, in 10⁶ bytes."""
    with ledger.engine.connect() as connection:
        if ledger.engine.dialect.name == "postgresql":
            return float(connection.scalar(sa.text("SELECT pg_database_size(current_database())")) or 0) / 1e6
        pages, size = (connection.scalar(sa.text(f"PRAGMA {name}")) or 0 for name in ("page_count", "page_size"))
        return float(pages * size / 1e6)


# -- tables and leases ------------------------------------------------------------------------------------------------


def made_up(number: int) -> Packed:
    """One shard of eight shots, each with a face and a voice."""
    episode, language = f"series/e{number // 20:05d}", f"l{number % 20:02d}"
    requests = tuple(ShotRequest(
        shot=f"S{n:04d}", source=FILE, start=SHOT_FRAMES * n, end=SHOT_FRAMES * (n + 1), width=1920, height=1080,
        rate=RATE, faces=(FACE,), generator=ENGINE, tracks=(SpeakerTrack(speaker="A", lines=(HeardLine(audio=Artifact(
            sha256=sha256(f"{number} {n}".encode()), size=1, media_type="audio/flac"), at=0),)),))
        for n in range(SHOTS_A_SHARD))
    name = sha256(f"{number}".encode())
    return Packed(Shard(id=f"shard-{name[:20]}", episode=episode, language=language, requests=requests), 1800.0,
                  tuple(sha256(f"{number} {n} recipe".encode()) for n in range(SHOTS_A_SHARD)))


def queue(count: int, address: str) -> None:
    """Every shard once through the queue."""
    watch, ledger = Stopwatch(), Ledger(address)
    run = ledger.begin_run("run", {}, {}, catalog="c", lease_s=3600)
    before = database_mb(ledger)
    for first in range(0, count, SLOTS):
        packed = [made_up(number) for number in range(first, min(count, first + SLOTS))]
        artifacts = {one.shard.id: sha256(one.shard.id.encode()) for one in packed}
        with watch("enqueue, 500 at once", len(packed)):
            shards.enqueue(ledger, packed, artifacts=artifacts, run_id=run, catalog="c", priority=0, in_flight=SLOTS,
                           deadline_s=86400)
    with watch("overview for `status`, all queued"):
        shards.overview(ledger, catalog="c")
    done = 0
    while waiting := dispatched(ledger, watch):
        with watch("reap, nothing lost"):
            shards.reap(ledger)
        for one in waiting:
            with watch("note the flow run"):
                shards.submitted(ledger, one.shard, one.attempt, "00000000-0000-0000-0000-000000000000")
            with watch("claim"):
                lease = shards.claim(ledger, one.shard, one.attempt, owner="node/pod/1", device="H100", lease_s=60)
            if lease is None:
                raise SystemExit(f"{one.shard} was dispatched, and cannot be claimed")
            beat = Beat(1900.0, 90.0, 14, SHOTS_A_SHARD * SHOT_FRAMES)
            with watch("heartbeat"):
                shards.heartbeat(ledger, lease, beat)
            with watch("finish"):
                shards.finish(ledger, lease, beat, {})
            done += 1
    if done != count:
        raise SystemExit(f"{done} of {count} shards came through")
    with watch("history for estimates"):
        shards.history(ledger, "infinitetalk")
    with watch("costs of a run"):
        shards.spent(ledger, [run])
    with watch("overview for `status`, all done"):
        shards.overview(ledger, catalog="c")
    total = [sum(row[part] for name, row in watch.rows.items() if not name.startswith("overview")) for part in (1, 2)]
    print(f"{count:,} shards of {SHOTS_A_SHARD} shots on {ledger.engine.dialect.name}\n\n{watch.table()}\n")
    grown = database_mb(ledger) - before
    print(f"all moves of a shard: {1000 * total[0] / count:.1f} ms wall, {1000 * total[1] / count:.1f} ms of this "
          f"process; database {grown:.0f} MB, {1000 * grown / count:.1f} kB a shard; peak memory {peak_mb():.0f} MB")


def dispatched(ledger: Ledger, watch: Stopwatch) -> list[shards.Waiting]:
    """One tick."""
    with watch(f"dispatch, {SLOTS} at once"):
        return shards.dispatch(ledger, pool="gpu", slots=SLOTS, patience_s=3600)


# -- planning ---------------------------------------------------------------------------------------------------------


def request_for(episode: int, language: int, shots: int) -> PlanRequest:
    """An episode in which somebody speaks and is seen in every shot; its lines differ by language."""
    frames = SHOT_FRAMES * shots
    edges = range(0, frames, SHOT_FRAMES)
    ticks = [frame_to_ticks(edge, RATE) for edge in edges]
    length = frame_to_ticks(SHOT_FRAMES, RATE) - 4800
    lines = tuple(SpokenLine(
        id=f"L{n:04d}", speaker="A", voice="v", text="as long as a line is", start=at, length=length,
        slot=(at, at + length), planned=(at, at + length), natural=length, stretch=1.0,
        audio=Artifact(sha256=sha256(f"{episode} {language} {n}".encode()), size=1, media_type="audio/flac"))
        for n, at in enumerate(ticks))
    source = Source(video=FILE, original="0" * 64, width=1920, height=1080, rate=RATE, frames=frames, audio=FILE,
                    channels=2)
    seen = tuple(Shot(id=f"S{n:04d}", start=edge, end=edge + SHOT_FRAMES, faces=(FACE,))
                 for n, edge in enumerate(edges))
    return PlanRequest(source=source, shots=Shots(frames=frames, shots=seen), generator=ENGINE, profile="fast-4",
                       region="frame", speech=Speech(language="es", lines=lines))


def planning(episodes: int, languages: int, shots: int) -> None:
    """A catalog from its file to packed shards, language by language, as a run does it."""
    watch, estimator = Stopwatch(), Estimator(History())
    looked_over(episodes, languages, watch)
    first = plan.function(None, request_for(0, 0, 1)).shots[0].request  # type: ignore[arg-type]
    with watch("the first estimate, which imports the engine"):
        estimator.seconds(first)
    times = []
    for number in range(episodes * languages):
        episode, language = divmod(number, languages)
        with watch("the request of a language (stands in for the steps before)"):
            request = request_for(episode, language, shots)
        with watch("plan"):
            planned = plan.function(None, request)  # type: ignore[arg-type]
        with watch("recipes of its shots"):
            missing = {generate_shot.recipe(shot.request): shot.request for shot in planned.shots if shot.request}
        with watch("estimates and packing"):
            packed = estimator.shards(missing, episode=f"e{episode}", language=f"l{language}")
        times += [one.estimate_s + estimator.startup_s for one in packed]
    print(f"{episodes:,} episodes × {languages} languages, {shots} speaking shots of 5 s each\n\n{watch.table()}\n")
    print(f"{len(times):,} shards, {sum(times) / 3600:,.0f} GPU hours; taking the longest first on {SLOTS} GPUs takes "
          f"{makespan(times, SLOTS) / bound(times, SLOTS):.4f} of the bound; peak memory {peak_mb():.0f} MB")


def looked_over(episodes: int, languages: int, watch: Stopwatch) -> None:
    """The catalog file, and a look at what is there: nothing yet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed = [{"id": f"e{n:05d}", "video": f"e{n:05d}.mp4"} for n in range(episodes)]
        for one in listed:
            (folder / one["video"]).write_bytes(one["id"].encode())
        file = folder / "catalog.yaml"
        file.write_text(yaml.safe_dump({"series": "s", "source_language": "en", "languages": TAGS[:languages],
                                        "episodes": listed}))
        settings = load_settings(None, {"out": str(folder / "out"), "engines.generator": "infinitetalk"})
        with watch("read the catalog file"):
            jobs = catalog_jobs(load_catalog(file), settings.out)
        selected = select(jobs)
        space = open_workspace(settings)
        with watch("survey of what is there (nothing), an episode", episodes):
            survey(space, selected)
        print(f"database after the survey: {database_mb(space.ledger):.0f} MB; peak memory {peak_mb():.0f} MB\n")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(required=True, dest="verb")
    one = verbs.add_parser("queue")
    one.add_argument("shards", nargs="?", type=int, default=20_000)
    one.add_argument("--database", default="")
    two = verbs.add_parser("plan")
    for name, default in (("episodes", 10_000), ("languages", len(TAGS)), ("shots", 10)):
        two.add_argument(name, nargs="?", type=int, default=default)
    given = parser.parse_args()
    if given.verb == "plan":
        planning(given.episodes, given.languages, given.shots)
        return
    with tempfile.TemporaryDirectory() as folder:
        queue(given.shards, given.database or f"sqlite:///{folder}/infinidub.db")


if __name__ == "__main__":
    main()
