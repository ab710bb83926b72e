"""What was found, as Markdown, JSON and pictures; the paper's table stands by itself, and nothing is set beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from infinitetalk.evaluate.bootstrap import Interval
from infinitetalk.evaluate.report import DISCLAIMER
from infinitetalk.experiment.arms import BEST, Arm
from infinitetalk.experiment.bench import How
from infinitetalk.experiment.claims import LEAST_COVERED, LEAST_SOURCES, UNTESTED, Found, Table, claims, judge
from infinitetalk.experiment.conditioning import Standing, Training
from infinitetalk.experiment.paper import FIGURES, TABLE_3, TITLE
from infinitetalk.experiment.plots import save_curves, save_figures, save_strips
from infinitetalk.small.config import SmallConfig

NAME = "conditioning"
ROWS = (("r at lag 0", "↑"), ("Sync-C*", "↑"), ("lag*", "0"), ("Sync-D*", "↓"), ("drift", "↓"),
        ("drift from source", "↓"), ("colour error", "↓"), ("seam", "1"), ("copy", "↓"), ("copy at ends", "↓"),
        ("motion copy", "↓"), ("camera error", "↓"), ("face distance", "↓"), ("FID", "↓"), ("FVD", "↓"))
"""Figures in tables, and which way is better."""
MEANINGS = (
    "r at lag 0, Sync-C*, lag*, Sync-D*: how lips that a network reads from the pixels go with the voice's visemes",
    "drift: way of the mean colour (0 … 1) in 100 frames; from source: the same of the difference to the source",
    "colour error: distance of the mean colour from the source's in the last chunk",
    "seam: change where chunks join over that elsewhere; 1 is none",
    "copy: median over least distance of a later chunk's frames to its reference; at ends: how often the nearest frame "
    "is one of the first or last four. Those of I2V and FL2V are frames of the chunk itself, and not counted",
    "motion copy: correlation of the head's motion with the source's",
    "camera error: background against the source's, % of the width",
    "face distance: of dlib-128 to the source's face at the same time",
    "FID, FVD: Fréchet distances of one dub to its source, mean over dubs, by the extractors named under coverage: not "
    "the figures that papers call so")
MEASURED_BY = ("Sync-C*", "face distance", "FID", "FVD", "camera error", "motion copy", "drift")


def write(out: Path, table: Table, arms: Sequence[Arm], strips: Sequence[tuple[Arm, Path]], standing: Standing,
          config: SmallConfig, training: Training, how: How) -> Path:
    """Write `conditioning.md`, `.json` and its pictures.

    Args:
        out: Folder.
        table: Figures.
        arms: Rows.
        strips: Frames of the first pair, by arm.
        standing: How far the experiment is: what is not finished says so.
        config: Of the weights.
        training: How forks were trained.
        how: How they were dubbed.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_figures(out / f"{NAME}-figures.png", table, arms)
    save_curves(out / f"{NAME}-colours.png", table, [arm for arm in arms if arm.weights])
    if strips:
        save_strips(out / f"{NAME}-pictures.png", strips)
    found = [judge(claim, table) for claim in claims(next(arm.name for arm in arms if arm.begin < 1))]
    lines = [*_head(table, standing, config, training, how), *_claims(found), *_ours(table, arms), *_paper(),
             *_differences(table, arms), *_coverage(table, arms), *_pictures(strips)]
    _put(out / f"{NAME}.md", "\n".join(lines) + "\n")
    data = {"standing": asdict(standing), "training": asdict(training), "how": asdict(how),
            "means": {arm.name: {figure: _data(table.mean(arm.name, figure)) for figure in table.figures}
                      for arm in arms},
            "claims": [{"says": one.claim.says, "verdict": one.verdict, "why": one.why,
                        "difference": _data(one.difference)} for one in found], "note": DISCLAIMER}
    _put(out / f"{NAME}.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return out / f"{NAME}.md"


def _head(table: Table, standing: Standing, config: SmallConfig, training: Training, how: How) -> Iterator[str]:
    yield from ("# Conditioning: the paper's experiments on the synthetic world", "")
    if not standing.finished:
        yield from (f"**Not finished**: {standing.dubbed} of {standing.dubs} dubs are measured. The same command with "
                    "`--resume` goes on.", "")
    seconds = how.frames(config) / 25
    yield from (
        f"One base (`{config.name}`, {config.side} pixels, chunks of {config.frames} frames, {config.context} of them "
        f"context) was forked; each fork was trained onwards for {training.steps} steps of {training.batch} chunks on "
        f"the same clips with the same seed ({training.seed}), and differs in what its chunks are told alone. Then "
        f"every fork dubbed the same {how.pairs} held-out pairs (source i, voice j ≠ i) with the same noise, "
        f"seeds: {how.seeds} ({how.ablation_seeds} where one thing of {BEST} is changed), {how.frames(config)} frames "
        f"({seconds:.1f} s) each: {how.chunks} chunks where chunks share one frame, more where they share context. "
        f"Sampler: {how.sampler_steps} steps, guidance by audio {how.guidance:g}, colour correction {how.color:g}.",
        "", "Intervals are 95 %, by bootstrap over sources: dubs of one source are averaged first; of fewer than "
        f"{LEAST_SOURCES} sources the mean alone is told. Where a claim is judged, both sides are the same pairs with "
        "the same seeds.", "", DISCLAIMER, "")


def _claims(found: Sequence[Found]) -> Iterator[str]:
    yield from ("## What the paper says, and what was found", "")
    yield from (f"- {one.sentence}" for one in found)
    yield from (f"- {one.replace(':', ': **not tested**;', 1)}" for one in UNTESTED)
    yield ""


def _ours(table: Table, arms: Sequence[Arm]) -> Iterator[str]:
    yield from ("## Figures: rendered people, this project's small weights", "",
                f"![Figures]({NAME}-figures.png)", "")
    for title, chosen in (("", [arm for arm in arms if not arm.ablation]),
                          (f"{BEST} with one thing changed:", [arm for arm in arms if arm.ablation
                                                              or arm.name == BEST])):
        if title:
            yield from (title, "")
        yield f"| | {' | '.join(arm.name for arm in chosen)} |"
        yield "|---|" + "---|" * len(chosen)
        yield f"| dubs | {' | '.join(str(table.items(arm.name)) for arm in chosen)} |"
        for figure, better in ROWS:
            cells = [_shown(table.mean(arm.name, figure)) for arm in chosen]
            if any(cell != "–" for cell in cells):
                yield f"| {figure} ({better}) | {' | '.join(cells)} |"
        yield ""
    yield from (f"- **{arm.name}**: {arm.told}." for arm in arms)
    yield ""
    yield from (f"- {one}." for one in MEANINGS)
    yield from ("", f"![Colours over time]({NAME}-colours.png)", "")


def _paper() -> Iterator[str]:
    yield from ("## What the paper prints", "", f"{TITLE}. Other people, other weights, other networks that measure: "
                "compare the order of rows within a table, never cells of two tables.", "",
                f"| | {' | '.join(FIGURES)} |", "|---|" + "---|" * len(FIGURES))
    yield from (f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |" for name, row in TABLE_3.items())
    yield ""


def _differences(table: Table, arms: Sequence[Arm]) -> Iterator[str]:
    chosen = [arm for arm in arms if arm.weights and arm.name != BEST]
    yield from (f"## Differences to {BEST}, pair by pair", "", "Bold: the interval does not cross 0.", "",
                f"| | {' | '.join(arm.name for arm in chosen)} |", "|---|" + "---|" * len(chosen))
    for figure, _ in ROWS:
        cells = [table.difference(arm.name, BEST, figure) for arm in chosen]
        if any(cells):
            yield f"| {figure} | {' | '.join(_shown(one, clear=True) for one in cells)} |"
    yield ""


def _coverage(table: Table, arms: Sequence[Arm]) -> Iterator[str]:
    yield from ("## Coverage", "", f"Dubs with a value, of those measured; a value must rest on {LEAST_COVERED:.0%} of "
                "the frames that it could. Figures that are not named have one for every dub.", "",
                f"| | {' | '.join(arm.name for arm in arms)} |", "|---|" + "---|" * len(arms))
    for figure in table.figures:
        found = [table.covered(arm.name, figure) for arm in arms]
        if any(have < of for have, of in found):
            yield f"| {figure} | {' | '.join(f'{have} of {of}' for have, of in found)} |"
    yield ""
    yield from (f"- {figure}: by {by}." for figure, by in table.instruments().items() if by and figure in MEASURED_BY)
    yield from (f"- {figure} is missing: {why}." for figure, why in table.reasons().items())
    yield ""


def _pictures(strips: Sequence[tuple[Arm, Path]]) -> Iterator[str]:
    if strips:
        yield from ("## Pictures", "", f"The first pair, from the top: {'; '.join(arm.name for arm, _ in strips)}.", "",
                    f"![Frames]({NAME}-pictures.png)")


def _shown(one: Interval | None, *, clear: bool = False) -> str:
    if one is None:
        return "–"
    if one.clips < LEAST_SOURCES:
        return f"{one.mean:.3g} ({one.clips} {'source' if one.clips == 1 else 'sources'})"
    text = f"{one.mean:.3g} ({one.low:.3g} … {one.high:.3g})"
    return f"**{text}**" if clear and one.clear else text


def _data(one: Interval | None) -> dict[str, float] | None:
    return one._asdict() if one else None


def _put(file: Path, text: str) -> None:
    writing = file.with_name(f".{file.name}")
    writing.write_text(text, encoding="utf-8")
    writing.replace(file)
