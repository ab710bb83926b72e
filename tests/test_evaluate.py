"""Metrics: every fault that is put into a clean clip moves its own figure, and not the others."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate import frechet, identity, long_form, motion, mouth, picture, syncnet
from infinitetalk.evaluate.bootstrap import interval, paired
from infinitetalk.evaluate.frechet import Gaussian
from infinitetalk.evaluate.own import Layout
from tests import moving_mouths as faults
from tests.moving_mouths import Drawn

CLEAN_SEEDS = (1, 2, 3)
READER = mouth.DarkMouth()


@functools.cache
def clean(seed: int) -> Drawn:
    return faults.draw(seed)


def figures(clip: Drawn, source: Drawn) -> dict[str, float]:
    sync = mouth.sync(READER.read(clip.frames, clip.boxes), clip.track)
    return {"sync": sync.confidence, "r": sync.at_zero, "lag": sync.lag, "drift": picture.drift(clip.frames),
            "seam": picture.seam(clip.frames, picture.joins(len(clip.frames))).ratio,
            "copy": picture.copy(clip.frames, clip.other[None]).ratio,
            "camera": motion.camera_error(clip.frames, source.frames, source.boxes).percent}


@functools.cache
def clean_figures(seed: int) -> dict[str, float]:
    return figures(clean(seed), clean(seed))


TOLERANCE = {"sync": 0.15, "r": 0.2, "lag": 0, "drift": 0.008, "seam": 0.6, "copy": 1.0, "camera": 0.3}
"""How far a figure may be from the clean clip's when the fault is another's."""
FAULTS: dict[str, tuple[Any, set[str]]] = {
    "late": (faults.late, {"lag", "r"}),
    "foreign": (lambda clip: faults.foreign(clip, clean(77)), {"sync", "r", "lag"}),
    "drifting": (faults.drifting, {"drift"}),
    "spliced": (faults.spliced, {"seam"}),
    "pasted": (faults.pasted, {"copy"}),
    "panned": (faults.panned, {"camera"})}
"""The fault, and the figures that it may move."""


@pytest.mark.parametrize("seed", CLEAN_SEEDS)
def test_a_clean_clip_is_clean(seed: int) -> None:
    found = clean_figures(seed)
    assert found["sync"] > 0.6
    assert found["r"] > 0.85
    assert found["lag"] == 0
    assert found["drift"] < 0.01
    assert 0.5 < found["seam"] < 1.6
    assert found["copy"] < 3
    assert found["camera"] < 0.05


@pytest.mark.parametrize("seed", CLEAN_SEEDS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_the_other_figures_alone(name: str, seed: int) -> None:
    fault, own = FAULTS[name]
    found = figures(fault(clean(seed)), clean(seed))
    for figure in TOLERANCE.keys() - own:
        if (name, figure) in {("late", "camera"), ("spliced", "camera")}:
            continue  # the head covers other parts of the wall
        assert found[figure] == pytest.approx(clean_figures(seed)[figure], abs=TOLERANCE[figure]), figure


@settings(max_examples=8, deadline=None)
@given(frames=st.integers(1, 9), seed=st.sampled_from(CLEAN_SEEDS))
def test_a_late_picture_is_found_at_its_lag(frames: int, seed: int) -> None:
    clip = faults.late(clean(seed), frames)
    found = mouth.sync(READER.read(clip.frames, clip.boxes), clip.track)
    assert found.lag == -frames
    assert found.best > 0.8


def test_an_early_picture_has_a_positive_lag() -> None:
    track = clean(1).track
    assert mouth.sync(track[3:], track[:-3]).lag == 3


def test_foreign_sound_does_not_fit() -> None:
    for seed in CLEAN_SEEDS:
        clip = faults.foreign(clean(seed), clean(seed + 70))
        found = mouth.sync(READER.read(clip.frames, clip.boxes), clip.track)
        assert found.confidence < 0.5 * clean_figures(seed)["sync"]
        assert found.at_zero < 0.35


@settings(max_examples=6, deadline=None)
@given(much=st.floats(0.02, 0.05), seed=st.sampled_from(CLEAN_SEEDS))
def test_drift_is_as_large_as_it_is(much: float, seed: int) -> None:
    clip = faults.drifting(clean(seed), much)
    assert picture.drift(clip.frames, clean(seed).frames) == pytest.approx(much * np.sqrt(2), rel=0.12)
    assert picture.drift(clip.frames) > clean_figures(seed)["drift"] + 0.5 * much


@pytest.mark.parametrize("seed", CLEAN_SEEDS)
def test_a_seam_is_found_where_it_is(seed: int) -> None:
    clip = faults.spliced(clean(seed))
    found = picture.seam(clip.frames, picture.joins(len(clip.frames)))
    assert found.ratio > 2.5
    assert found.frame in {81, 153}
    assert found.joins == 2


@settings(max_examples=6, deadline=None)
@given(at=st.integers(0, faults.FRAMES - 1), seed=st.sampled_from(CLEAN_SEEDS))
def test_a_pasted_reference_is_found_where_it_is(at: int, seed: int) -> None:
    clip = faults.pasted(clean(seed), at)
    found = picture.copy(clip.frames, np.stack([clean(seed + 20).other, clip.other]))
    assert found.ratio > 10 * clean_figures(seed)["copy"]
    assert (found.frame, found.reference) == (at, 1)
    assert found.distance == 0


@settings(max_examples=6, deadline=None)
@given(by=st.integers(1, 6), seed=st.sampled_from(CLEAN_SEEDS))
def test_a_panned_camera_is_measured(by: int, seed: int) -> None:
    found = motion.camera_error(faults.panned(clean(seed), by).frames, clean(seed).frames, clean(seed).boxes)
    assert found.percent == pytest.approx(100 * by / faults.SIDE, rel=0.15)
    assert found.covered <= found.of <= motion.MOST_SAMPLES


def test_a_head_that_copies_is_told_from_one_that_does_not() -> None:
    source, other = clean(1), clean(2)
    heads = [motion.head_motion(clip.frames, clip.boxes) for clip in (source, faults.drifting(source), other)]
    assert motion.motion_copy(heads[1], heads[0])[0] > 0.95
    assert abs(motion.motion_copy(heads[2], heads[0])[0]) < 0.35
    middles = (source.boxes[1:, :2] - source.boxes[:-1, :2]).astype(np.float64)
    assert motion.motion_copy(heads[0], middles)[0] > 0.9, "the way that the head was drawn"


def test_boxes_alone_tell_the_reader_nothing() -> None:
    """A frozen mouth under boxes that breathe with the speech does not speak."""
    clip = clean(1)
    breathing = clip.boxes + np.concatenate([np.zeros((len(clip.boxes), 3)), 6 * clip.track], 1)
    frozen = np.repeat(clip.frames[:1], len(clip.frames), 0)
    still = np.repeat(clip.boxes[:1], len(clip.frames), 0)
    still[:, 3] = still[:, 1] + breathing[:, 3] - breathing[:, 1]
    with pytest.raises(BadInputError, match="never moves"):
        mouth.sync(READER.read(frozen, still.astype(np.float32)), clip.track)


def test_frames_without_a_mouth_are_left_out_and_counted() -> None:
    clip = clean(1)
    boxes = clip.boxes.copy()
    boxes[40:90] = np.nan
    seen = np.isfinite(boxes).all(1)
    found = mouth.sync(READER.read(clip.frames, boxes), clip.track, seen)
    assert found.covered == 150
    assert found.at_zero > 0.85
    with pytest.raises(BadInputError, match="too few"):
        mouth.sync(clip.track, clip.track, np.arange(200) < 35)


@pytest.mark.parametrize(("seen", "track", "why"), [
    (np.zeros((100, 1)), np.random.default_rng(0).random((100, 1)), "never moves"),
    (np.random.default_rng(0).random((100, 1)), np.full((100, 1), 0.4), "never moves"),
    (np.ones((100, 2)), np.ones((100, 3)), "channels"), (np.ones(100), np.ones((100, 1)), "series"),
    (np.full((100, 1), np.nan), np.ones((100, 1)), "no numbers"), (np.ones((9, 1)), np.ones((9, 1)), "too few")])
def test_what_cannot_be_compared_is_refused(seen: Any, track: Any, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        mouth.sync(seen, track)


def test_loudness_follows_the_sound() -> None:
    time = np.arange(3 * 16_000) / 16_000
    samples = (0.3 * np.sin(2 * np.pi * 220 * time) * ((time > 1) & (time < 2))).astype(np.float32)
    heard = mouth.loudness(samples, 75, 25)[:, 0]
    assert heard[30:45].min() > 0.9
    assert heard[:20].max() < 0.05


def test_lab_is_cie_lab() -> None:
    colours = np.array([[[255, 255, 255], [255, 0, 0], [0, 0, 255]]], np.uint8)
    for at, wanted in enumerate(((100, 0, 0), (53.24, 80.09, 67.20), (32.30, 79.19, -107.86))):
        assert picture.lab(colours[None, :, at:at + 1])[0, :3] == pytest.approx(wanted, abs=0.05)


# -- Fréchet ----------------------------------------------------------------------------------------------------------


def gaussian(features: Any) -> Gaussian:
    return Gaussian.over([features])


def test_frechet_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 12))
    one = gaussian(x)
    assert frechet.distance(one, one) < 1e-6
    assert frechet.distance(one, gaussian(x + 0.5)) == pytest.approx(12 * 0.25, rel=1e-6)
    assert frechet.distance(one, gaussian(3 * x)) == pytest.approx(
        4 * np.trace(one.covariance) + 4 * one.mean @ one.mean, rel=1e-6)
    other = gaussian(rng.normal(size=(4000, 12)) @ rng.normal(size=(12, 12)))
    assert frechet.distance(one, other) == pytest.approx(frechet.distance(other, one), rel=1e-9)


def test_frechet_agrees_with_the_matrix_square_root() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    a, b = (gaussian(rng.normal(size=(300, 20)) @ rng.normal(size=(20, 20))) for _ in range(2))
    step = a.mean - b.mean
    wanted = step @ step + np.trace(a.covariance + b.covariance - 2 * np.real(sqrtm(a.covariance @ b.covariance)))
    assert frechet.distance(a, b) == pytest.approx(wanted, rel=1e-8)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 199), max_size=5), scale=st.floats(1e-3, 1e3))
def test_statistics_in_blocks_are_those_of_the_whole(cuts: list[int], scale: float) -> None:
    x = scale * np.random.default_rng(2).normal(3, 1, (200, 6))
    edges = [0, *sorted(cuts), 200]
    blocks = Gaussian.over([x[a:b] for a, b in itertools.pairwise(edges)])
    assert blocks.mean == pytest.approx(x.mean(0))
    assert blocks.covariance.ravel() == pytest.approx(np.cov(x.T).ravel(), rel=1e-6, abs=1e-9 * scale**2)


def test_few_samples_stay_finite_and_bad_ones_are_refused() -> None:
    rng = np.random.default_rng(3)
    few = gaussian(rng.normal(size=(5, 60)))
    assert not few.full_rank
    assert np.isfinite(frechet.distance(few, gaussian(rng.normal(size=(5, 60)))))
    assert frechet.distance(few, few) < 1e-6
    for bad, why in ((np.full((4, 3), np.nan), "no numbers"), (np.ones((2, 2, 2)), "shape"), (np.ones((0, 3)), "no")):
        with pytest.raises(BadInputError, match=why):
            gaussian(bad)
    with pytest.raises(BadInputError, match="one sample"):
        frechet.distance(gaussian(np.ones((1, 3))), gaussian(np.ones((1, 3))))
    with pytest.raises(BadInputError, match="60 and 3"):
        frechet.distance(few, gaussian(np.ones((4, 3))))


class FrameMean:
    name = "frame mean"

    def of_clips(self, clips: Any) -> Any:
        return clips.mean((1, 2, 3))


def test_fvd_hears_time_and_its_clips_do_not_overlap() -> None:
    rng = np.random.default_rng(4)
    videos = [clean(seed).frames for seed in CLEAN_SEEDS]
    shuffled = [np.concatenate([clip[rng.permutation(16)] for clip in frechet.cut(video)]) for video in videos]
    assert [len(list(frechet.cut(video))) for video in videos] == [12, 12, 12]
    for extractor, least, most in ((Layout(), 1e-3, np.inf), (FrameMean(), -1, 1e-9)):
        one, other = (frechet.clip_statistics(extractor, many) for many in (videos, shuffled))
        assert least < frechet.distance(one, other) < most
        assert frechet.distance(one, one) < 1e-6


# -- SyncNet ----------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(shift=st.integers(-12, 12), scale=st.floats(0.1, 10))
def test_syncnet_finds_the_offset(shift: int, scale: float) -> None:
    seen = np.random.default_rng(5).normal(size=(120, 32)).astype(np.float32)
    found = syncnet.scores(scale * seen, scale * np.roll(seen, shift, 0))
    one = syncnet.scores(seen, np.roll(seen, shift, 0))
    assert found.offset == -shift
    assert found.confidence == pytest.approx(scale * one.confidence, rel=1e-3)
    if shift == 0:
        assert found.distance < 1e-3 * max(scale, 1)


def test_padding_alone_scores_and_the_inner_figure_says_so() -> None:
    seen = np.random.default_rng(6).normal(size=(100, 64)).astype(np.float32)
    silent = syncnet.scores(seen, np.repeat(seen[:1], 100, 0))
    assert silent.confidence > 0.2
    assert silent.inner < 0.05
    assert np.isnan(syncnet.scores(seen[:20], seen[:20]).inner)
    for bad in (seen[:50], np.zeros((0, 64)), np.full_like(seen, np.nan)):
        with pytest.raises(BadInputError):
            syncnet.scores(seen, bad)


def test_tracks_count_within_their_video() -> None:
    def one(confidence: float) -> syncnet.SyncScores:
        return syncnet.SyncScores(confidence, 8.0, 0, 1.0, 100)

    assert syncnet.mean_of_tracks([[one(2), one(4)], [one(5)], []]) == (4.0, 8.0, 2)
    with pytest.raises(BadInputError, match="no video"):
        syncnet.mean_of_tracks([[], []])


def test_mfcc_is_python_speech_features() -> None:
    time = np.arange(16_000) / 16_000
    found = syncnet.mfcc((0.3 * np.sin(2 * np.pi * (200 + 400 * time) * time)).astype(np.float32))
    assert found.shape == (13, 99)
    assert found[:4, 10] == pytest.approx(MFCC_AT_10, abs=2e-3)


MFCC_AT_10 = (18.7003, 25.3965, 15.1385, 6.0806)
"""By python_speech_features 0.6 on the same sound in 16 bits."""


def test_crops_leave_room_under_the_chin() -> None:
    faces = np.repeat(np.array([[40, 30, 80, 80]], np.float32), 30, 0)
    faces[7] = (0, 0, 10, 10)
    boxes = syncnet.crop_boxes(faces)[6:24]
    assert boxes == pytest.approx(np.repeat([[60 - 35, 55 - 25, 60 + 35, 55 + 45]], 18, 0))
    frame = np.full((90, 120, 3), 200, np.uint8)
    cut = syncnet.crop(frame, boxes[3])
    assert cut.shape == (224, 224, 3)
    assert cut[0, 0, 0] == 200
    assert cut[-1, 0, 0] == syncnet.GREY


# -- identity ---------------------------------------------------------------------------------------------------------


def test_likeness_of_known_vectors_and_its_coverage() -> None:
    faces = np.array([[1, 0, 0], [0, 1, 0], [2, 0, 0], [np.nan] * 3])
    found = identity.likeness(faces, np.array([1.0, 0, 0]))
    assert found.cosine == pytest.approx(2 / 3)
    assert (found.covered, found.of) == (3, 4)
    assert identity.likeness(faces, faces).cosine == pytest.approx(1)
    assert identity.likeness(faces, faces).near == 1
    assert identity.likeness(7 * faces, np.array([3.0, 0, 0])).cosine == pytest.approx(found.cosine)
    with pytest.raises(BadInputError, match="no face"):
        identity.likeness(faces[3:], faces[0])
    assert identity.facesim(np.array([[-1.0, 0], [1, 0]]), np.array([1.0, 0])) == pytest.approx(0.5)
    assert identity.facesim(np.full((16, 2), np.nan), np.array([1.0, 0])) == 0


def test_centring_tells_strangers_apart() -> None:
    rng = np.random.default_rng(7)
    centre = np.full(128, 0.3)
    one, other = (centre + 0.05 * rng.normal(size=128) for _ in range(2))
    assert identity.likeness(one[None], other).cosine > 0.9
    assert abs(identity.likeness(one[None], other, centre).cosine) < 0.3


@settings(max_examples=15, deadline=None)
@given(angle=st.floats(-3, 3), scale=st.floats(0.1, 10), shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
def test_alignment_recovers_turn_scale_and_shift(angle: float, scale: float, shift: tuple[float, float]) -> None:
    points = np.array(identity.ARCFACE_POINTS)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = identity.similarity(points, points @ turn.T + shift)
    assert found == pytest.approx(np.column_stack([turn, shift]), abs=1e-6 * max(1, scale))


# -- long videos, intervals -------------------------------------------------------------------------------------------


def test_windows_pool_what_lies_up_to_them() -> None:
    rng = np.random.default_rng(8)
    videos = [rng.normal(size=(length, 4)) for length in (75, 50, 20)]

    def figure(spans: Any) -> float:
        return float(np.concatenate([videos[one.video][one.start:one.end] for one in spans]).mean())

    rows = long_form.long_form(figure, [len(video) for video in videos], rate=25, seconds=1)
    assert [row.videos for row in rows] == [2, 2, 1]
    assert rows[1].cumulative == pytest.approx(np.concatenate([videos[0][:50], videos[1][:50]]).mean())
    assert rows[2].own == pytest.approx(videos[0][50:75].mean())


def test_a_slope_per_minute_is_recovered() -> None:
    lengths, rate = [1500, 1500, 1000], 25

    def figure(spans: Any) -> float:
        return sum(2 * (one.start + one.end) / 2 / rate / 60 + one.video for one in spans) / len(spans)

    found = long_form.slope(figure, lengths, rate)
    assert found.mean == pytest.approx(2)
    assert (found.clips, found.low, found.high) == (3, pytest.approx(2), pytest.approx(2))


def test_pairs_see_what_means_cannot() -> None:
    rng = np.random.default_rng(9)
    clips = rng.normal(0, 10, 60)
    one, other = clips + 1 + rng.normal(0, 0.5, 60), clips + rng.normal(0, 0.5, 60)
    found = paired(one, other)
    assert found.clear
    assert found.low < 1 < found.high + 0.2
    assert not interval(one).clear or interval(one).high - interval(one).low > 5 * (found.high - found.low)
    assert paired(one, other) == found, "the same seed"
    one[3] = np.nan
    assert paired(one, other).left_out == 1
    with pytest.raises(BadInputError, match="pairs"):
        paired(one, other[:5])
    with pytest.raises(BadInputError, match="no clip"):
        interval(np.full(4, np.nan))


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(10)
    inside = [found.low <= 0 <= found.high for found in
              (interval(rng.normal(size=40), seed, resamples=400) for seed in range(200))]
    assert 0.88 <= np.mean(inside) <= 0.99
