"""Pictures, masks and colours on their way into and out of the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk.color import statistics, transfer
from infinitetalk.errors import BadInputError
from infinitetalk.inputs import published_box
from infinitetalk.persons import Cast, assign, halves, person_masks, region_mask
from infinitetalk.pictures import (
    AREAS,
    bucket,
    dubbing_size,
    fit,
    fit_mask,
    from_uint8,
    to_uint8,
)
from tests.golden import distance, golden, read

TABLES = {"ASPECT_RATIO_627": "480", "ASPECT_RATIO_960": "720"}
SOURCE, SIZE = (90, 160), (64, 112)
LEFT, RIGHT, MIDDLE = (4, 10, 40, 70), (110, 10, 45, 70), (60, 20, 30, 50)


def random_frames(frames: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, frames, 24, 32, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


# --- Against the published implementation ------------------------------------------------------------------------


@golden
def test_pictures_and_masks_are_scaled_and_cut_as_published():
    """The file's `sp_split` is about tokens split over several GPUs, which this engine does not do."""
    recorded = read("preprocess")
    for name, case in recorded.about["cases"].items():
        target = tuple(case["target"])
        levels = (fit(recorded[f"in.image.{name}"].numpy(), target) + 1) / 2 * 255
        assert torch.equal(levels.round().to(torch.uint8), recorded[f"out.image.{name}"][0, :, 0]), name
        assert torch.equal(fit_mask(recorded[f"in.mask.{name}"], target), recorded[f"out.mask.{name}"]), name


@golden
def test_buckets_are_the_published_ones():
    for case, (_, size) in read("preprocess").about["buckets"].items():
        source, table = case.split(":")
        assert bucket(*map(int, source.split("x")), TABLES[table]) == tuple(size), case


@golden
def test_colours_are_corrected_as_published():
    recorded = read("color_match")
    stats = statistics(recorded["in.ref"][0, :, 0])
    strengths = recorded.under("out.strength_")
    assert strengths
    for strength, expected in strengths.items():
        assert distance(transfer(recorded["in.chunk"][0], stats, float(strength)), expected[0]) < 1e-5, strength


# --- Sizes and pixels --------------------------------------------------------------------------------------------


def test_dubbing_keeps_the_sources_aspect():
    assert dubbing_size(1920, 1080) == dubbing_size(640, 360) == (832, 464)
    assert dubbing_size(1080, 1920) == (464, 832)
    assert dubbing_size(1920, 1080, AREAS["720"]) == (1280, 720)


@given(st.integers(200, 4000), st.integers(200, 4000), st.sampled_from(sorted(AREAS.values())))
def test_dubbing_sizes_lie_on_the_grid_and_near_the_area(width, height, area):
    wide, high = dubbing_size(width, height, area)
    assert wide % 16 == high % 16 == 0
    assert 0.8 < wide * high / area < 1.2
    assert 0.85 < (wide / high) / (width / height) < 1.18


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(16, 16), (16, 48), (64, 32)]))
def test_any_picture_covers_any_size(height, width, size):
    image = np.full((height, width, 3), 200, np.uint8)
    pixels = fit(image, size)
    assert pixels.shape == (3, *size)
    assert torch.allclose(pixels, torch.full_like(pixels, 200 / 255 * 2 - 1))
    assert fit_mask(torch.ones(1, height, width), size).shape == (1, *size)


def test_rows_and_columns_are_cut_alike():
    mask = torch.rand(1, 50, 70, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_mask(mask.mT, (64, 64)), fit_mask(mask, (64, 64)).mT)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8),
                                   np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_rgb_picture_is_refused(image):
    with pytest.raises(BadInputError):
        fit(image, (16, 16))


def test_pixels_leave_truncated_and_never_wrap():
    pixels = torch.tensor([-1.5, -1.0, 0.0, 254.9 / 127.5 - 1, 1.0, 1.5]).view(1, 6, 1, 1).expand(3, -1, -1, -1)
    assert to_uint8(pixels)[:, 0, 0, 0].tolist() == [0, 0, 127, 254, 255, 255]
    assert from_uint8(torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)).unique().tolist() == [-1, 1]


# --- Colours -----------------------------------------------------------------------------------------------------


def test_corrected_frames_have_the_references_colours():
    reference = statistics(random_frames(1, seed=1)[:, 0] * 0.3 + 0.1)
    corrected = transfer(random_frames(), reference)
    for frame in corrected.unbind(1):
        mine = statistics(frame)
        assert torch.allclose(mine.mean, reference.mean, atol=0.3)
        assert torch.allclose(mine.std, reference.std, atol=0.3)


def test_statistics_are_those_of_lab():
    chequered = torch.tensor([[-1.0, 1.0]]).expand(3, 2, 2)
    stats = statistics(chequered)
    assert torch.allclose(stats.mean, torch.tensor([50.0, 0, 0]), atol=0.01)
    assert torch.allclose(stats.std, torch.tensor([50.0, 0, 0]), atol=0.01)


def test_a_frame_with_its_own_colours_stays_and_strength_blends():
    frames = random_frames()
    own = transfer(frames[:, :1], statistics(frames[:, 0]))
    assert torch.allclose(own, frames[:, :1], atol=1e-4)
    stats = statistics(random_frames(1, seed=1)[:, 0] * 0.3)
    half, whole = transfer(frames, stats, 0.5), transfer(frames, stats)
    assert torch.allclose(half, (frames + whole) / 2, atol=1e-6)
    assert transfer(frames, stats, 0) is frames


@given(st.floats(-1, 1))
@settings(max_examples=20)
def test_a_flat_frame_takes_the_references_mean(level):
    stats = statistics(random_frames(1, seed=1)[:, 0])
    flat = transfer(torch.full((3, 1, 24, 32), level), stats)
    assert torch.isfinite(flat).all()
    assert torch.allclose(flat, flat[:, :, :1, :1].expand_as(flat))
    assert torch.allclose(statistics(flat[:, 0]).mean, stats.mean, atol=0.1)


def test_frames_are_corrected_each_by_itself():
    stats, frames = statistics(random_frames(1, seed=1)[:, 0]), random_frames(4)
    apart = torch.cat([transfer(frame, stats) for frame in frames.split(1, 1)], 1)
    assert torch.allclose(apart, transfer(frames, stats), atol=1e-6)


# --- Persons -----------------------------------------------------------------------------------------------------


def test_two_persons_are_left_and_right_unless_told():
    cast = assign((None, None), (), SOURCE, SIZE)
    left, right, rest = masks_of(cast)
    assert cast.voices == (0, 1)
    assert left[:, :7].any()
    assert not left[:, 7:].any()
    assert right[:, 7:].any()
    assert not right[:, :7].any()
    assert torch.equal(rest > 0, (left + right) == 0)


def masks_of(cast: Cast) -> torch.Tensor:
    assert cast.masks is not None
    assert cast.masks.shape == (3, SIZE[0] // 8, SIZE[1] // 8)
    assert set(cast.masks.unique().tolist()) <= {0, 1}
    return cast.masks


def test_one_alone_is_driven_without_masks():
    assert assign((LEFT,), (), SOURCE, SIZE).voices == assign((None,), (), SOURCE, SIZE).voices == (0,)
    assert assign((LEFT,), (), SOURCE, SIZE).masks is None


def test_where_nobody_is_heard_all_hear_silence():
    for seen in ((), (LEFT, RIGHT, MIDDLE)):
        cast = assign((), seen, SOURCE, SIZE)
        assert cast.voices == (None,)
        assert cast.masks is None


def test_of_many_who_are_seen_only_the_speaker_is_driven():
    cast = assign((MIDDLE,), (LEFT, RIGHT), SOURCE, SIZE)
    speaker, others, _ = masks_of(cast)
    assert cast.voices == (0, None)
    assert speaker[:, 5:9].any()
    assert not speaker[:, :4].any()
    assert others[:, :3].any()
    assert others[:, -3:].any()
    assert not (speaker * others).any()


def test_where_a_bystander_overlaps_the_speaker_the_speaker_is_driven():
    speaker, others, _ = masks_of(assign((MIDDLE,), ((70, 10, 80, 70),), SOURCE, SIZE))
    assert torch.equal(speaker, masks_of(assign((MIDDLE,), (LEFT,), SOURCE, SIZE))[0])
    assert others.any()
    assert not (speaker * others).any()


def test_beside_two_speakers_the_others_are_background():
    cast = assign((LEFT, RIGHT), (MIDDLE,), SOURCE, SIZE)
    assert cast.voices == (0, 1)
    assert masks_of(cast)[2, 4, 6] == 1


def test_bystanders_outside_of_the_generated_picture_do_not_count():
    assert assign((MIDDLE,), ((0, 0, 20, 90),), SOURCE, (64, 64)).voices == (0,)


def test_a_small_face_keeps_a_token():
    small = region_mask((33, 33, 3, 3), SOURCE)
    masks = person_masks(small, region_mask(RIGHT, SOURCE), SIZE)
    tokens = masks[:, ::2, ::2]
    assert tokens[0].sum() == 1
    assert tokens.sum(0).max() == 1


@pytest.mark.parametrize("heard", [(LEFT, MIDDLE, RIGHT), (LEFT, None), ((-1, 0, 5, 5), LEFT), ((0, 0, 0, 5), LEFT),
                                   ((150, 80, 11, 5), LEFT), (np.zeros(SOURCE, bool), LEFT),
                                   (np.ones((3, 3), bool), LEFT), (np.ones(SOURCE, np.uint8), LEFT)])
def test_impossible_speakers_are_refused(heard):
    with pytest.raises(BadInputError):
        assign(heard, (), SOURCE, SIZE)


def test_a_speaker_whom_the_cut_removes_is_refused():
    with pytest.raises(BadInputError, match="person 1"):
        assign(((0, 0, 10, 90), RIGHT), (), SOURCE, (64, 64))


def test_masks_may_be_given_as_pictures():
    left = np.zeros(SOURCE, bool)
    left[10:80, 4:44] = True
    assert torch.equal(masks_of(assign((left, RIGHT), (), SOURCE, SIZE)), masks_of(assign((LEFT, RIGHT), (), SOURCE,
                                                                                          SIZE)))


def test_published_boxes_name_rows_first():
    assert published_box([10, 4, 80, 44], "bbox") == LEFT


def test_the_default_halves_leave_the_published_margin():
    assert halves(100, 200) == ((5, 5, 90, 90), (105, 5, 90, 90))
