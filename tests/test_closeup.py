"""The square that follows a face: it goes with it, and what is cut out is laid back where it was."""

from __future__ import annotations

import numpy as np
import pytest

from infinitetalk import closeup
from infinitetalk.shapes import SPATIAL

LOOKS = np.array([0, 10, 20, 30, 40])


def boxes(x: float = 100, side: float = 60, step: float = 0) -> np.ndarray:
    left = x + step * np.arange(5)
    return np.stack([left, np.full(5, 80.0), left + side, np.full(5, 80 + side)], 1)


def test_it_goes_with_the_face_and_stands_where_nobody_looked() -> None:
    seen = closeup.follow(LOOKS, boxes(step=10), np.arange(-5, 50))
    middles, sides = (seen[:, 0] + seen[:, 2]) / 2, seen[:, 2] - seen[:, 0]
    assert np.allclose(middles[5:46], 130 + np.arange(41))
    assert np.allclose(middles[:5], 130)
    assert np.allclose(middles[46:], 170)
    assert np.allclose(sides, 72)


def test_one_look_whose_size_is_wrong_changes_nothing_much() -> None:
    wrong = boxes()
    wrong[2] += [-6, -6, 6, 6]  # the detector's next size
    left, _, right, _ = closeup.follow(LOOKS, wrong, np.arange(41)).T
    assert np.ptp(right - left) == 0


def test_a_face_that_comes_nearer_is_followed() -> None:
    near = boxes()
    near[:, 2:] += 10 * np.arange(5)[:, None]
    left, _, right, _ = closeup.follow(LOOKS, near, LOOKS).T
    sides = right - left
    assert (np.diff(sides) >= 0).all()
    assert sides[-1] > 1.25 * sides[0]


def test_eyes_and_an_open_jaw_are_inside_and_the_lower_face_is_whole_tokens() -> None:
    left, top, right, bottom = closeup.follow([0], [[0, 0, 100, 100]], [0])[0]
    assert top <= 20 <= 115 <= bottom  # eyes are about 30 % down, an open jaw ends below the box
    assert left < 0
    assert right > 100
    for side in (64, 128):
        assert all(edge % (2 * SPATIAL) == 0 for edge in closeup.lower_face(side))


@pytest.mark.parametrize("box", [(40.3, 30.7, 104.3, 94.7), (-11.5, -7.25, 52.5, 56.75), (100, 90, 164, 154)])
def test_what_is_cut_out_is_laid_back_where_it_was(box: tuple[float, ...]) -> None:
    down, across = np.mgrid[:140, :150]
    picture = np.stack([across + 20, down + 30, (across + down) // 2], 2).astype(np.uint8)
    back = closeup.lay(closeup.cut(picture, box, 64), box, picture.shape[:2]).astype(int)
    left, top, right, bottom = (np.clip(round(edge), 0, size) for edge, size in zip(box, (150, 140) * 2, strict=True))
    inner = np.s_[top + 3:bottom - 3, left + 3:right - 3]
    assert np.abs(back - picture)[inner].max() <= 2
    outside = np.ones(picture.shape[:2], bool)
    outside[max(top - 1, 0):bottom + 1, max(left - 1, 0):right + 1] = False
    assert not back[outside].any()


def test_shares_are_laid_as_they_are() -> None:
    laid = closeup.lay(np.ones((64, 64), np.float32), (10, 20, 42, 52), (80, 70))
    assert laid.dtype == np.float32
    assert np.allclose(laid[22:50, 12:40], 1)
    assert laid.sum() == pytest.approx(32 * 32, rel=0.05)


@pytest.mark.parametrize("side", [64, 128])
def test_the_whole_mouth_is_covered_and_nothing_that_was_not_made(side: int) -> None:
    share = closeup.share(side)
    left, top, right, bottom = np.round(np.array(closeup.MOUTH) * side).astype(int)
    assert (share[top:bottom, left:right] > 0.95).all()
    made = np.zeros((side, side), bool)
    left, top, right, bottom = (int(edge) for edge in closeup.lower_face(side))
    made[top:bottom, left:right] = True
    assert not share[~made].any()
    assert np.abs(np.diff(share, axis=0)).max() < 0.75 * 64 / side  # it fades: no edge is seen
    assert np.abs(np.diff(share, axis=1)).max() < 0.75 * 64 / side


def test_what_becomes_smaller_is_averaged() -> None:
    fine = np.indices((64, 64)).sum(0) % 2 * np.float32(1)
    inside = np.s_[22:38, 22:38]
    assert np.allclose(closeup.lay(fine, (20.3, 20.3, 40.3, 40.3), (60, 60))[inside], 0.5, atol=0.05)
    assert np.abs(closeup.lay(fine, (0, 0, 64, 64), (64, 64)) - fine).max() < 1e-3
