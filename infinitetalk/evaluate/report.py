"""Everything of one video as rows of figures, and of many as means with intervals; what could not be taken says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate import identity, long_form, motion, mouth, picture
from infinitetalk.evaluate.bootstrap import Interval, interval
from infinitetalk.evaluate.clips import Case
from infinitetalk.evaluate.frechet import Gaussian, ImageFeatures, distance
from infinitetalk.evaluate.measure import Details, Flags, Measure, known_rows, taken
from infinitetalk.evaluate.mouth import MouthReader
from infinitetalk.evaluate.sets import Instruments, Pool
from infinitetalk.evaluate.syncnet import SyncScores, mean_of_tracks
from infinitetalk.evaluate.tracks import score_video
from infinitetalk.world.scene import CHANNELS

DISCLAIMER = ("Figures with a star are the project's own. Whatever is measured by its own extractors, or on synthetic"
              " people, is no score on HDTF, CelebV-HQ or EMTD, and belongs beside no paper's table.")
UP_TO = ", up to here"


@dataclass(frozen=True)
class Judged:
    """One video's figures."""

    name: str
    frames: int
    with_mouth: int
    rate: float
    measures: tuple[Measure, ...]
    windows: tuple[dict[str, float | None], ...]
    """Ten-second windows, where it is that long."""
    notes: tuple[str, ...]


def judge(case: Case, instruments: Instruments, chunk: int = 81, context: int = 9, *,
          windows: bool = True) -> tuple[Judged, Pool]:
    """All figures of one video, and its part in those over many.

    Args:
        case: What was read.
        instruments: What looks at it.
        chunk: Frames of a chunk, context included; where chunks join decides the seams.
        context: Of them, taken from the chunk before.
        windows: Whether each ten seconds are looked at by themselves, too.

    Raises:
        BadInputError: Chunks that add nothing.
    """
    joins = picture.joins(len(case.frames), chunk, context)
    seen = None if case.mouths is None else known_rows(case.mouths)
    pool = Pool.over(case, instruments)
    rows = [*_sync_rows(case, instruments.reader, seen), *_picture_rows(case, joins), *_motion_rows(case),
            *_face_rows(case, instruments), *_syncnet_rows(case, instruments), *pool.rows()]
    judged = Judged(case.name, len(case.frames), 0 if seen is None else int(seen.sum()), case.rate, tuple(rows),
                    tuple(_windows(case, instruments.reader, instruments.images) if windows else ()), case.notes)
    return judged, pool


def _sync_rows(case: Case, reader: MouthReader, seen: Flags | None) -> list[Measure]:
    found: list[mouth.Sync] = []
    details: Details = {}

    def sync() -> mouth.Sync:
        if not found:
            if case.mouths is None or seen is None:
                raise BadInputError("nobody knows where the mouth is", where="Sync-C*")
            if case.track is None:
                raise BadInputError("there is no driving track", where="Sync-C*")
            read = reader.read(case.frames, case.mouths)
            found.append(mouth.sync(read, case.track, seen))
            if read.shape[1] == case.track.shape[1] == len(CHANNELS):
                details["of opening"] = mouth.sync(mouth.opening(read), mouth.opening(case.track), seen).at_zero
        return found[0]

    of, by = len(case.frames), f"{reader.name}; {case.heard_by or 'no track'}; mouths: {case.found_by or 'unknown'}"
    return [
        taken("Sync-C*", "best − median correlation over lags ±10; higher is better", of,
               lambda: (sync().confidence, sync().covered, {"best": sync().best}), by),
        taken("r at lag 0", "correlation as picture and sound lie", of,
               lambda: (sync().at_zero, sync().covered, details), by),
        taken("lag*", "frames at the best correlation; below 0 the picture is late", of,
               lambda: (sync().lag, sync().covered, {}), by),
        taken("Sync-D*", "distance at the best lag; 0 the same, 1.41 unrelated", of,
               lambda: (sync().distance, sync().covered, {}), by)]


def _syncnet_rows(case: Case, instruments: Instruments) -> list[Measure]:
    """As papers measure: face tracks at 25 frames a second, the mean over tracks."""
    found: list[tuple[list[SyncScores], int]] = []

    def scored() -> tuple[float, float, int]:
        if instruments.sync is None or instruments.finder is None:
            raise BadInputError("no SyncNet, or no face finder, is installed", where="Sync-C")
        if case.speech is None:
            raise BadInputError("there is no sound", where="Sync-C")
        if not found:
            found.append(score_video(instruments.sync, instruments.finder, case.frames, case.rate, case.speech))
        tracks, frames = found[0]
        confidence, apart, _ = mean_of_tracks([tracks])
        return confidence, apart, frames

    def one(index: int) -> tuple[float, int, Details]:
        figures = scored()
        return figures[index], figures[2], {"tracks": len(found[0][0])}

    frames, by = len(case.frames), instruments.sync.name if instruments.sync else ""
    return [taken("Sync-C", "confidence; higher is better", frames, lambda: one(0), by),
            taken("Sync-D", "distance; lower is better", frames, lambda: one(1), by)]


def _picture_rows(case: Case, joins: Sequence[int]) -> list[Measure]:
    frames = len(case.frames)

    def seam() -> tuple[float, int, Details]:
        found = picture.seam(case.frames, joins)
        details: Details = {"worst": found.worst, "frame": found.frame}
        if case.source is not None:
            details["of the source"] = picture.seam(case.source, joins).ratio
        return found.ratio, found.joins, details

    def copy() -> tuple[float, int, Details]:
        if case.references is None:
            raise BadInputError("no reference is given", where="copy")
        found = picture.copy(case.frames, case.references)
        return found.ratio, frames, {"frame": found.frame, "distance": found.distance}

    rows = [taken("drift", "way of the mean colour (0 … 1) in 100 frames; lower is better", frames,
                   lambda: (picture.drift(case.frames), frames, {}))]
    if case.source is not None:
        rows.append(taken("drift from source", "the same of the difference to the source", frames,
                           lambda: (picture.drift(case.frames, case.source), frames, {})))
    return [*rows, taken("seam", "change where chunks join over that elsewhere; 1 is none", len(joins), seam),
            taken("copy", "median over least distance to the reference; about 1 … 3 is none", frames, copy)]


def _motion_rows(case: Case) -> list[Measure]:
    def copied() -> tuple[float, int, Details]:
        if case.source is None or case.mouths is None:
            raise BadInputError("source or mouths are unknown", where="motion copy")
        value, known = motion.motion_copy(motion.head_motion(case.frames, case.mouths),
                                          motion.head_motion(case.source, case.mouths))
        return value, known, {}

    def camera() -> tuple[float, int, Details]:
        if case.source is None:
            raise BadInputError("no source is given", where="camera error")
        found = motion.camera_error(case.frames, case.source, case.mouths)
        return found.percent, found.covered, {"worst": found.worst, "frame": found.frame}

    frames = len(case.frames)
    return [taken("motion copy", "correlation of the head's motion with the source's; 1 is taken over", frames - 1,
                   copied, "registration"),
            taken("camera error", "background against the source's, % of the width; lower is better",
                   min(frames, motion.MOST_SAMPLES), camera, "registration")]


def _face_rows(case: Case, instruments: Instruments) -> list[Measure]:
    faces = instruments.faces
    kind = "CSIM" if faces is None or faces.centre is None else "CSIM*"
    found: list[identity.Likeness] = []

    def like() -> identity.Likeness:
        if not found:
            if faces is None:
                raise BadInputError("no face network is installed", where=kind)
            other = case.references[:1] if case.references is not None else case.source
            if other is None:
                raise BadInputError("neither source nor reference is given", where=kind)
            wanted = faces.embed(other)
            found.append(identity.likeness(faces.embed(case.frames), wanted[0] if len(wanted) == 1 else wanted,
                                           faces.centre))
        return found[0]

    frames, by = len(case.frames), faces.name if faces else ""
    return [taken(kind, "cosine of the face with the reference's, else the source's; 1 the same", frames,
                   lambda: (like().cosine, like().covered, {}), by),
            taken("face distance", "of the same embeddings; lower is better", frames,
                   lambda: (like().distance, like().covered, {f"share ≤ {identity.SAME_PERSON}": like().near}), by)]


def _windows(case: Case, reader: MouthReader, images: ImageFeatures) -> list[dict[str, float | None]]:
    """Sync-C*, colour, drift and FID of each ten seconds, and of everything up to there."""
    lengths, rate = [len(case.frames)], case.rate
    first = case.frames[0] if case.references is None else case.references[0]
    figures: dict[str, long_form.Figure] = {
        "drift": lambda spans: picture.drift(case.frames[spans[0].start:spans[0].end]),
        "Lab distance": lambda spans: picture.lab_distance(case.frames[spans[0].start:spans[0].end], first)}
    if case.mouths is not None and case.track is not None and lengths[0] >= rate * long_form.SECONDS:
        read, seen, track = reader.read(case.frames, case.mouths), known_rows(case.mouths), case.track

        def sync(spans: Sequence[long_form.Span]) -> float:
            part = slice(spans[0].start, spans[0].end)
            return mouth.sync(read[part], track[part], seen[part]).confidence

        figures["Sync-C*"] = sync
    if case.source is not None and lengths[0] >= rate * long_form.SECONDS:
        made, known = (np.concatenate([images.of_images(video[at:at + 64]) for at in range(0, len(video), 64)])
                       for video in (case.frames, case.source))
        figures["FID"] = lambda spans: distance(*(Gaussian.over(whole[one.start:one.end] for one in spans)
                                                  for whole in (made, known)))
    rows: dict[float, dict[str, float | None]] = {}
    for name, figure in figures.items():
        for window in long_form.long_form(figure, lengths, rate):
            row = rows.setdefault(window.seconds, {"seconds": window.seconds})
            row[f"{name}{UP_TO}"], row[name] = (
                float(one) if np.isfinite(one) else None for one in (window.cumulative, window.own))
    return list(rows.values())


# -- many videos ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Figures over clips."""

    judged: tuple[Judged, ...]
    means: dict[str, Interval]
    """By figure: mean and 95 % interval over clips."""
    pooled: tuple[Measure, ...]
    """FID and FVD of all clips together."""
    skipped: dict[str, str]
    """Why, by name."""
    slopes: dict[str, Interval]
    """By figure: change per minute of the ten-second windows, over clips that have two of them."""


def summarise(judged: Sequence[Judged], pool: Pool, skipped: dict[str, str], seed: int = 0) -> Summary:
    """Means with bootstrap intervals over clips; clips without a figure are counted, not dropped."""
    pooled = pool.rows()
    named = dict.fromkeys(one.name for video in judged for one in video.measures)
    names = [name for name in named if name not in {one.name for one in pooled}]
    means = {}
    for name in names:
        values = np.array([next((one.value for one in video.measures if one.name == name and one.value is not None),
                                np.nan) for video in judged])
        if np.isfinite(values).any():
            means[name] = interval(values, seed)
    return Summary(tuple(judged), means, tuple(pooled), skipped, _slopes(judged, seed))


def _slopes(judged: Sequence[Judged], seed: int) -> dict[str, Interval]:
    names = dict.fromkeys(name for video in judged for row in video.windows for name in row
                          if name != "seconds" and not name.endswith(UP_TO))
    found = {}
    for name in names:
        values = np.array([long_form.per_minute([np.nan if (value := row.get(name)) is None else value
                                                 for row in video.windows]) for video in judged])
        if np.isfinite(values).any():
            found[name] = interval(values, seed)
    return found


def as_data(summary: Summary) -> dict[str, Any]:
    """What JSON can hold."""
    return {"videos": [asdict(one) for one in summary.judged],
            "means": {name: one._asdict() for name, one in summary.means.items()},
            "per_minute": {name: one._asdict() for name, one in summary.slopes.items()},
            "pooled": [asdict(one) for one in summary.pooled], "skipped": summary.skipped, "note": DISCLAIMER}


def as_markdown(summary: Summary) -> str:
    """A report for people."""
    many = len(summary.judged) + len(summary.skipped)
    lines = ["# Evaluation", "", f"{len(summary.judged)} of {many} videos. {DISCLAIMER}", ""]
    lines += [f"- skipped: {name}: {why}" for name, why in summary.skipped.items()]
    if len(summary.judged) > 1:
        lines += ["", "| figure | mean | 95 % interval | clips |", "|---|---|---|---|"]
        lines += [f"| {name} | {one.mean:.4g} | {one.low:.4g} … {one.high:.4g} | {one.clips} of "
                  f"{one.clips + one.left_out} |" for name, one in summary.means.items()]
        lines += [f"| {name}, change per minute | {one.mean:.4g} | {one.low:.4g} … {one.high:.4g} | {one.clips} of "
                  f"{one.clips + one.left_out} |" for name, one in summary.slopes.items()]
        lines += [f"| {one.name} (all clips) | {shown(one)} | – | {one.covered} |" for one in summary.pooled]
    for video in summary.judged:
        lines += ["", f"## {video.name}", "", f"{video.frames} frames at {video.rate:g} a second, {video.with_mouth} "
                  "with a mouth." + "".join(f" Note: {note}." for note in video.notes), "",
                  "| figure | value | covers | means | by |", "|---|---|---|---|---|"]
        lines += [f"| {one.name} | {shown(one)} | {one.covered} of {one.of} | {one.meaning} | {one.instrument} |"
                  for one in video.measures]
        lines += _window_lines(video)
    return "\n".join(lines) + "\n"


def _window_lines(video: Judged) -> list[str]:
    names = list(video.windows[0]) if video.windows else []
    cells = [["–" if (value := row.get(name)) is None else f"{value:.3g}" for name in names] for row in video.windows]
    head = ["", "In windows of ten seconds:", "", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    return [*head, *(f"| {' | '.join(row)} |" for row in cells)] if names else []


def shown(one: Measure) -> str:
    """The value with its details, or why there is none."""
    if one.value is None:
        return f"– ({one.why})"
    details = ", ".join(f"{name} {value:.4g}" for name, value in one.details.items())
    return f"{one.value:.4g}" + (f" ({details})" if details else "")
