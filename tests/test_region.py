"""Making a part of the picture anew: what stays stays as it was filmed, and what is hidden tells nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from infinitetalk import closeup
from infinitetalk.engine import Engine, Speaker, Take
from infinitetalk.pictures import from_uint8
from infinitetalk.reference import Image
from infinitetalk.region import FEATHER, Kept, cells, hide, of_frames, visible
from infinitetalk.small.load import TEMPERATURE, load, settings
from infinitetalk.state import ChunkState
from infinitetalk.train.draw import Chunks, DrawSettings, Place
from infinitetalk.train.latents import ClipEncoder
from tests.tiny_small import TINY, clip, codec, speech, write_folder

SIZE = (TINY.side, TINY.side)
FRAMES = 60
BOX = (16.0, 32.0, 40.0, 56.0)
"""Whole cells."""
HOW = settings(TINY, steps=2, color=0.0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(write_folder(tmp_path_factory.mktemp("lite")))


def filmed(seed: int = 0, inside: int = 0) -> NDArray[np.uint8]:
    """Noise that moves; within the box it may be another one."""
    frames, other = (np.random.default_rng(one).integers(0, 255, (FRAMES, *SIZE, 3), np.uint8)
                     for one in (seed, inside))
    frames[:, 32:56, 16:40] = other[:, 32:56, 16:40]
    return frames


def take(frames: NDArray[np.uint8]) -> Take:
    voice = np.random.default_rng(5).normal(0, 0.1, FRAMES * 640).astype(np.float32)
    return Take(frames.__getitem__, FRAMES, Fraction(25), SIZE, (Speaker(voice),), region=lambda index: BOX)


def dubbed(engine: Engine, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([chunk.frames for chunk in engine.dub(take(frames), HOW)])


# -- cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_is_made_anew_where_its_middle_lies_in_the_box_of_one_of_its_frames() -> None:
    boxes = torch.zeros(9, 4)
    boxes[0] = torch.tensor([0, 0, 5, 5])  # of the first latent, which is that frame alone
    boxes[7] = torch.tensor([8, 0, 21, 9])  # of the third: frames 5 to 8
    free = cells(boxes, (16, 24))
    assert free.int().tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0]] * 2, [[0, 1, 1], [0, 0, 0]]]
    assert of_frames(free).sum((1, 2)).tolist() == [64, 0, 0, 0, 0, 128, 128, 128, 128]


def test_what_is_made_is_seen_whole_where_it_is_made_and_fades_out_around() -> None:
    free = cells(torch.tensor([BOX]), SIZE)
    share, inside = visible(free)[0], of_frames(free)[0]
    assert (share[inside] == 1).all()
    assert 0 < float(share[44, 40 + FEATHER]) < 1
    assert not share[:, 40 + 2 * FEATHER:].any()


def test_cells_that_stay_follow_the_source_at_each_steps_noise() -> None:
    source, noise, x = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 9.0)
    free = torch.tensor([[[[True, False], [False, False]]]])
    within = Kept(source, free[0]).within(x, noise, 0.25)
    assert within[:, 0].tolist() == [[[9, 0.75], [0.75, 0.75]]] * 2


# -- streams ----------------------------------------------------------------------------------------------------------


def test_all_else_stays_as_it_was_filmed(engine: Engine) -> None:
    frames = filmed()
    made = dubbed(engine, frames)
    stays = visible(cells(torch.tensor([BOX] * 61), SIZE))[:FRAMES].numpy() == 0
    assert np.abs(made[stays].astype(int) - frames[stays]).max() <= 1  # bytes are cut off, not rounded
    assert stays.mean() > 0.6
    assert np.abs(made.astype(int) - frames)[~stays].mean() > 20


def test_what_is_hidden_tells_nothing(engine: Engine) -> None:
    how = replace(HOW, reference=Image())  # the shot's first picture, which both have in common
    one, other = filmed(inside=1), filmed(inside=2)
    one[0] = other[0]
    made = [np.concatenate([chunk.frames for chunk in engine.dub(take(frames), how)]) for frames in (one, other)]
    inside = [frames[:, 32:56, 16:40].astype(int) for frames in made]
    assert np.abs(inside[0] - inside[1]).max() <= 1  # sums are rounded as memory happens to lie
    elsewhere = filmed(seed=3, inside=1)
    elsewhere[0] = other[0]
    changed = np.concatenate([chunk.frames for chunk in engine.dub(take(elsewhere), how)])
    assert np.abs(inside[0] - changed[:, 32:56, 16:40]).max() > 8


def test_a_stream_that_was_cut_off_goes_on_bit_for_bit_and_for_the_same_region_only(engine: Engine) -> None:
    frames = filmed()
    chunks = list(engine.dub(take(frames), HOW))
    state = ChunkState.load(chunks[0].state.save())
    assert np.array_equal(next(iter(engine.dub(take(frames), HOW, state))).frames, chunks[1].frames)
    with pytest.raises(Exception, match="state"):
        next(iter(engine.dub(replace(take(frames), region=lambda index: (0, 0, 8, 8)), HOW, state)))


def test_networks_are_told_in_training_what_they_are_told_in_a_stream(tmp_path: Path) -> None:
    made = load(write_folder(tmp_path))
    filmed = clip(0, side=TINY.side)
    encoded = ClipEncoder(codec(), speech(), TINY.frames, TINY.side)(filmed)
    sample = Chunks([encoded], TINY.frames, TINY.context, DrawSettings()).samples([Place(0, 0, 0, "first", lips=True)])
    told: list[torch.Tensor] = []
    made.networks.transformer.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    voice = Speaker(filmed.speech[:TINY.frames * 640])
    shot = Take(filmed.frames.__getitem__, TINY.frames, Fraction(25), SIZE, (voice,),
                region=lambda index: closeup.lower_face(TINY.side))
    list(made.dub(shot, HOW))
    assert torch.allclose(sample.y()[0], told[0][0], atol=2e-3)
    stays = ~sample.free[0].expand_as(sample.kept[0])
    assert 0.3 < float(stays.float().mean()) < 0.95
    pixels = from_uint8(torch.from_numpy(filmed.frames[:TINY.frames]).movedim(3, 0))
    hidden = codec().encode(hide(pixels, cells(torch.tensor([closeup.lower_face(TINY.side)] * TINY.frames), SIZE)))
    assert torch.allclose(sample.y()[0, 4:][stays], hidden[stays], atol=2e-3)


def test_small_networks_begin_with_less_noise_than_they_learnt_from(tmp_path: Path) -> None:
    made = load(write_folder(tmp_path))
    told: list[torch.Tensor] = []
    made.networks.transformer.register_forward_pre_hook(lambda _, given: told.append(given[0]))
    list(made.dub(replace(take(filmed()), region=None), HOW))
    assert float(told[0][0, :, 1:].std()) == pytest.approx(TEMPERATURE, rel=0.05)
    plain = replace(HOW, sampling=replace(HOW.sampling, temperature=1.0))
    told.clear()
    list(made.dub(replace(take(filmed()), region=None), plain))
    assert float(told[0][0, :, 1:].std()) == pytest.approx(1, rel=0.05)


def test_where_no_face_is_known_nothing_is_made_anew_alone() -> None:
    filmed = replace(clip(0, side=TINY.side), anew=np.zeros(4, np.float32))
    encoded = ClipEncoder(codec(), speech(), TINY.frames, TINY.side)(filmed)
    assert not encoded.free.any()
    drawn = Chunks([encoded], TINY.frames, TINY.context, DrawSettings(lips=1.0))
    assert not any(drawn.place(random.Random(seed)).lips for seed in range(20))
