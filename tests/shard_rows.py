"""Shards for tests of the queue: real records of shots that nobody will generate."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from models.pool import Beat, Packed
from models.recipe import sha256
from models.records import Artifact, EngineRef, Shard, ShotRequest, SpeakerTrack
from tasks import shards
from tasks.ledger import Ledger

FILE = Artifact(sha256="f" * 64, size=1, media_type="video/x-matroska")
NOTHING = Beat(gpu_seconds=0, startup_seconds=0, chunks=0, frames=0)


def beat(gpu_seconds: float, chunks: int = 0, frames: int = 0, startup_seconds: float = 0) -> Beat:
    return Beat(gpu_seconds=gpu_seconds, startup_seconds=startup_seconds, chunks=chunks, frames=frames)


def recipe_of(shot: str) -> str:
    return sha256(shot.encode())


def packed(name: str, shots: Sequence[str] = (), *, estimate_s: float = 100.0, episode: str = "series/e01",
           language: str = "es", engine: str = "pulse") -> Packed:
    """A shard `name` of 25 frames a shot; shots are S0000-like ids, its recipes go by them."""
    requests = tuple(ShotRequest(
        shot=shot, source=FILE, start=0, end=25, width=64, height=64, rate=Fraction(25),
        tracks=(SpeakerTrack(speaker="A", lines=()),), generator=EngineRef(name=engine))
        for shot in shots or (f"S{int(sha256(name.encode())[:7], 16):09d}",))
    return Packed(shard=Shard(id=name, episode=episode, language=language, requests=requests),
                  estimate_s=estimate_s, recipes=tuple(recipe_of(one.shot) for one in requests))


def enqueue(ledger: Ledger, *waiting: Packed, run_id: str = "", catalog: str = "c", priority: int = 0,
            in_flight: int = 100, deadline_s: float = 3600) -> list[str]:
    return shards.enqueue(
        ledger, waiting, artifacts={one.shard.id: sha256(one.shard.id.encode()) for one in waiting},
        run_id=run_id or ledger.begin_run("test", {}, {}), catalog=catalog, priority=priority, in_flight=in_flight,
        deadline_s=deadline_s)
