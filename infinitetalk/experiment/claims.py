"""What the paper says of each way of conditioning, as differences that can be measured, and whether they are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from infinitetalk.evaluate.bootstrap import Interval, interval, paired
from infinitetalk.evaluate.measure import Reals
from infinitetalk.experiment.arms import BEST, TWO

Verdict = Literal["repeated", "not repeated", "not tested"]
LEAST_COVERED = 0.5
"""Share of the frames that a value must rest on: a background that is known in one frame says nothing of others."""
LEAST_SOURCES = 5
"""Below, intervals over sources say nothing."""
SYNC = ("Sync-C*", "r at lag 0", "Sync-D*")


@dataclass(frozen=True)
class Claim:
    """One arm is to lie above (or below) another in a figure."""

    says: str
    figure: str
    arm: str
    more: bool = True
    """Whether the figure is to be larger than the other's."""
    than: str = BEST


def claims(sdedit: str) -> tuple[Claim, ...]:
    """The paper's, by the arms' names.

    Args:
        sdedit: Name of the arm that begins with the source.
    """
    return (
        Claim("I2V, whose chunks hang on the last frame made alone, drifts (section 3.2)", "drift from source", "I2V"),
        Claim("I2V's colours are far from the source's at the end (3.2)", "colour error", "I2V"),
        Claim("FL2V's chunks, between two given pictures, do not join: no motion is carried on (3.2)", "seam", "FL2V"),
        Claim("I2V's chunks join less well than those with context frames (3.2, 3.3)", "seam", "I2V"),
        Claim("FL2V takes over the source's motion (3.2)", "motion copy", "FL2V"),
        Claim("M0, trained with references from inside the chunk, copies the reference (3.4)", "copy", "M0"),
        Claim("M1, trained with references from the chunk's ends, copies it there (3.4)", "copy at ends", "M1"),
        Claim("M2, trained with references from far away, holds the source's colours less (3.4)", "colour error", "M2"),
        Claim("M2's frames are further from the source's (Table 3, FID)", "FID", "M2"),
        Claim("M2's clips are further from the source's (Table 3, FVD)", "FVD", "M2"),
        Claim("M3's lips follow better than M0's (Table 3, Sync-C)", "Sync-C*", "M0", more=False),
        Claim("M3's lips follow better than M1's (Table 3, Sync-C)", "Sync-C*", "M1", more=False),
        Claim("M3's lips follow better than M2's (Table 3, Sync-C)", "Sync-C*", "M2", more=False),
        Claim("A second reference makes the camera follow more closely (3.4, eq. 5)", "camera error", TWO, more=False),
        Claim("SDEdit, chunks that begin with the noised source, makes the camera follow more closely", "camera error",
              sdedit, more=False),
        Claim("SDEdit shifts colours", "drift from source", sdedit))


UNTESTED = (
    "People like the results better (Table 4): nobody was asked.",
    "FID, FVD, Sync-C, Sync-D and CSIM on HDTF, CelebV-HQ and EMTD, and other systems beside it (Tables 1 and 2): the "
    "networks here know rendered people only.",
    "Gestures and body follow the audio: no figure here reads them.",
    "Camera control by Uni3C: not part of this program.")
"""Of the paper's claims."""


@dataclass(frozen=True)
class Found:
    """A claim, and what became of it."""

    claim: Claim
    verdict: Verdict
    why: str
    difference: Interval | None = None
    """Of arm − other."""

    @property
    def sentence(self) -> str:
        """For a report."""
        return f"{self.claim.says}: **{self.verdict}**; {self.why}."


class Table:
    """Figures by arm, source, and item (pair and seed)."""

    def __init__(self, told: Mapping[str, Mapping[tuple[int, int], Mapping[str, Any]]]) -> None:
        """Take what was kept.

        Args:
            told: Arm → (pair, seed) → what `bench` wrote.
        """
        self._told = told
        rows = [one for by_item in told.values() for one in by_item.values()]
        self.figures = list(dict.fromkeys(name for row in rows for name in row["figures"]))

    def items(self, arm: str) -> int:
        """How many are measured."""
        return len(self._told.get(arm, {}))

    def covered(self, arm: str, figure: str) -> tuple[int, int]:
        """Items that have a value, of so many."""
        rows = self._told.get(arm, {}).values()
        return sum(_value(row, figure) is not None for row in rows), len(rows)

    def mean(self, arm: str, figure: str) -> Interval | None:
        """Over sources: what pairs have one source in common are no independent witnesses."""
        by_source = self._by_source(arm, figure, set(self._told.get(arm, {})))
        return interval(_means(by_source)) if by_source else None

    def difference(self, one: str, other: str, figure: str) -> Interval | None:
        """Of one arm − another, by source, on items that both have."""
        both = {item for item in self._told.get(one, {})
                if _value(self._told[one][item], figure) is not None
                and _value(self._told.get(other, {}).get(item), figure) is not None}
        if not both:
            return None
        return paired(_means(self._by_source(one, figure, both)), _means(self._by_source(other, figure, both)))

    def instruments(self) -> dict[str, str]:
        """What read the pixels, by figure."""
        return {name: str(one["by"]) for name, one in self._each()}

    def reasons(self) -> dict[str, str]:
        """Why values are missing, by figure: the first reason met."""
        found: dict[str, str] = {}
        for name, one in self._each():
            if _told(one) is None:
                found.setdefault(name, str(one["why"] or f"told in {one['covered']} of {one['of']} frames only"))
        return found

    def _each(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for by_item in self._told.values():
            for row in by_item.values():
                yield from row["figures"].items()

    def curve(self, arm: str) -> Reals | None:
        """Mean distance of colours from the source's, by time, (n,)."""
        rows = [row["apart"] for row in self._told.get(arm, {}).values()]
        return np.mean(rows, axis=0) if rows else None

    def _by_source(self, arm: str, figure: str, items: set[tuple[int, int]]) -> dict[int, list[float]]:
        found: dict[int, list[float]] = {}
        for item in sorted(items):
            row = self._told[arm][item]
            value = _value(row, figure)
            if value is not None:
                found.setdefault(int(row["source"]), []).append(value)
        return found


def _value(row: Mapping[str, Any] | None, figure: str) -> float | None:
    one = (row or {}).get("figures", {}).get(figure)
    return None if one is None else _told(one)


def _told(one: Mapping[str, Any]) -> float | None:
    """A value that rests on enough frames."""
    return None if one["value"] is None or one["covered"] < LEAST_COVERED * one["of"] else float(one["value"])


def _means(by_source: Mapping[int, Sequence[float]]) -> Reals:
    return np.array([np.mean(by_source[source]) for source in sorted(by_source)])


def judge(claim: Claim, table: Table) -> Found:
    """Whether a claim is repeated: where the interval of the difference lies on the side that it says."""
    difference = table.difference(claim.arm, claim.than, claim.figure)
    if difference is None:
        return Found(claim, "not tested", f"{claim.figure} could not be measured for both")
    told = (f"{claim.figure} of {claim.arm} − {claim.than}: {difference.mean:+.3g} "
            f"({difference.low:+.3g} … {difference.high:+.3g}, {difference.clips} sources)")
    if difference.clips < LEAST_SOURCES:
        return Found(claim, "not tested", f"{difference.clips} sources are too few; {told}", difference)
    if claim.figure in SYNC and not _follows(table, claim.than):
        return Found(claim, "not tested", f"lips of {claim.than} do not follow the voice in these weights; {told}",
                     difference)
    if not difference.clear:
        return Found(claim, "not repeated", f"the interval crosses 0; {told}", difference)
    if (difference.mean > 0) != claim.more:
        return Found(claim, "not repeated", f"it is the other way round; {told}", difference)
    return Found(claim, "repeated", told, difference)


def _follows(table: Table, arm: str) -> bool:
    """Whether lips follow the voice at all."""
    r = table.mean(arm, "r at lag 0")
    return r is not None and r.low > 0
