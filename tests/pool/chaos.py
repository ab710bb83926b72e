"""Schedules of blows against a pool at work, drawn from a seed, and the run that lives through them.

A blow comes when so many chunks were made in all, as the generators' journal says: never by the clock.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.pool import check
from tests.pool.stack import GPU, PATIENCE_S, Dubbed, Place, Program, Stack

Victim = Literal["shard", "worker", "parent", "server", "database", "store"]
VICTIMS: tuple[Victim, ...] = ("shard", "worker", "parent", "server", "database", "store")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
KINDS = [(victim, how) for victim in VICTIMS for how in SIGNALS]
CHUNKS = 26
"""Of both languages of the episode."""
AWAY_S = (0.0, 1.0, 6.0)
"""How long a server stays away: the last is longer than a lease."""


@dataclass(frozen=True)
class Blow:
    victim: Victim
    how: signal.Signals
    after: int
    """Chunks that were made before."""
    away_s: float


@dataclass(frozen=True)
class Schedule:
    seed: int
    blows: tuple[Blow, ...]
    in_flight: int
    """Shards at once: with one, a process goes on with the second when it is through with the first."""

    @classmethod
    def drawn(cls, seed: int) -> Schedule:
        """Every kind of blow comes first once in twelve seeds; half of them have a second one."""
        dice = random.Random(seed)
        kinds = [KINDS[seed % len(KINDS)], *([dice.choice(KINDS)] if dice.random() < 0.5 else [])]
        blows = [Blow(victim, how, dice.randrange(CHUNKS - 2 if victim in {"shard", "worker"} else CHUNKS + 1),
                      dice.choice(AWAY_S)) for victim, how in kinds]
        return cls(seed, tuple(sorted(blows, key=lambda blow: blow.after)), dice.choice((1, 2)))

    def __str__(self) -> str:
        blows = (f"{blow.how.name} {blow.victim} after {blow.after}, away {blow.away_s:.0f} s" for blow in self.blows)
        return f"{self.seed}: {', '.join(blows)}; {self.in_flight} in flight"


@dataclass
class Played:
    """What became of a schedule."""

    place: Place
    made: list[str]
    """A line of the journal for each chunk."""
    struck: list[Blow] = field(default_factory=list)
    hit: int = 0
    """Chunks that may have been in hand when blows fell."""
    starts: int = 1
    """Of the parent."""
    codes: list[int] = field(default_factory=list)
    """With which it ended."""


def live_through(stack: Stack, dubbed: Dubbed, seed: int) -> None:
    """Play a schedule: all is as if nothing had happened, and what was made twice was in hand when a blow fell."""
    schedule = Schedule.drawn(seed)
    played = play(stack, dubbed.speech, dubbed.catalog, schedule)
    check.assert_at_rest(stack, played.place)
    check.assert_as_undisturbed(played.place, dubbed.place)
    assert len(played.made) <= CHUNKS + played.hit, (str(schedule), played)


def play(stack: Stack, speech: Place, catalog: Path, schedule: Schedule) -> Played:
    """Dub the catalog from its finished speech on, under blows, until it is done."""
    place = stack.place(f"chaos_{schedule.seed}", like=speech)
    config = {"in_flight": schedule.in_flight}
    place.write_config(**config)
    before = len(_journal(stack))
    parent = place.parent(catalog)
    played, blows = Played(place, []), list(schedule.blows)
    parent.start()
    deadline = time.monotonic() + 2 * PATIENCE_S
    try:
        while (code := parent.process.poll()) != 0:
            assert time.monotonic() < deadline, f"{schedule} does not end: {parent.log.read_text()[-3000:]}"
            if code is not None:
                played.codes.append(code)
                assert played.starts <= 3 * len(schedule.blows), \
                    f"{schedule} does not get through: {played.codes} {parent.log.read_text()[-3000:]}"
                played.starts += 1
                parent.start()
            if blows and len(_journal(stack)) - before >= blows[0].after and _strike(stack, place, parent, blows[0],
                                                                                      played):
                played.struck.append(blows.pop(0))
                place.machine += 1  # who comes now finds nothing on its disk
                place.write_config(**config)
            time.sleep(0.05)
        played.codes.append(0)
    finally:
        parent.sweep()
        (stack.folder / "blows.log").open("a").write(f"{schedule}: {played.codes}\n")
    played.made = _journal(stack)[before:]
    return played


def _journal(stack: Stack) -> list[str]:
    return stack.journal.read_text().splitlines()


def _strike(stack: Stack, place: Place, parent: Program, blow: Blow, played: Played) -> bool:
    """Whether there was somebody to strike."""
    at_work = [] if place.stack.postgres.process is None else place.attempts("running")
    if blow.victim == "shard":
        if not at_work:
            return False
        with suppress(ProcessLookupError):
            os.kill(int(at_work[0].owner.rpartition("/")[2]), blow.how)
    elif blow.victim == "parent":
        parent.stop(blow.how)
    elif blow.victim == "database":
        # What shuts it down politely is SIGINT: after SIGTERM it waits until the last client leaves by itself.
        stack.postgres.end(signal.SIGINT if blow.how == signal.SIGTERM else blow.how)
        time.sleep(blow.away_s)
        stack.postgres.start()
    else:
        program = stack.programs[GPU if blow.victim == "worker" else blow.victim]
        program.stop(blow.how)
        time.sleep(blow.away_s)
        program.start()
    played.hit += max(1, len(at_work))
    return True
