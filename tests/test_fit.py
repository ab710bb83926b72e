"""Fitting voices to their slots."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fit import FASTEST, GAP, MAX_SHIFT, NEAR, SLOWEST, Fit, PlannedLine, fit_lines
from models.timebase import CLOCK

SECOND = CLOCK
END = 60 * SECOND


def line(number: int, speaker: str, start: float, end: float, natural: float) -> PlannedLine:
    return PlannedLine(f"L{number:04d}", speaker, round(start * CLOCK), round(end * CLOCK), round(natural * CLOCK))


def one(*lines: PlannedLine, end: int = END) -> Fit:
    return fit_lines(lines, end)[0]


@st.composite
def planned_lines(draw: st.DrawFn) -> list[PlannedLine]:
    lines = []
    for number in range(draw(st.integers(0, 12))):
        start = draw(st.integers(0, END))
        lines.append(PlannedLine(f"L{number + 1:04d}", draw(st.sampled_from("ABC")), start,
                                 min(END, start + draw(st.integers(0, 10 * SECOND))),
                                 draw(st.integers(1, 15 * SECOND))))
    return lines


@settings(deadline=None)
@given(planned_lines(), st.integers(SECOND, END))
def test_what_holds_for_every_episode(lines, end):
    fits = fit_lines(lines, end)
    by_id = {line.id: line for line in lines}
    assert {fit.id for fit in fits} == set(by_id)
    for fit in fits:
        source = by_id[fit.id]
        assert fit.start >= 0
        assert fit.length >= 0
        assert fit.start + fit.length <= end
        assert min(source.start, end) <= fit.start <= source.start + MAX_SHIFT
        assert source.natural / fit.stretched >= SLOWEST
        assert source.natural <= FASTEST * fit.stretched
        assert fit.overflow == max(0, fit.start + fit.stretched - fit.slot[1])
        assert fit.slot[0] <= fit.slot[1] <= end
    for speaker in "ABC":
        own = [fit for fit in fits if by_id[fit.id].speaker == speaker]
        assert all(a.start + a.length <= b.start for a, b in pairwise(own))


@settings(deadline=None)
@given(planned_lines())
def test_a_line_that_stays_in_its_slot_disturbs_nobody(lines):
    fits = fit_lines(lines, END)
    by_id = {line.id: line for line in lines}
    for fit in fits:
        if fit.overflow or not fit.length:
            continue
        source = by_id[fit.id]
        for other in lines:
            if other.start >= source.end and other.start > source.start:
                assert fit.start + fit.length <= max(other.start - GAP, source.end, fit.start)


@settings(deadline=None)
@given(planned_lines(), st.data())
def test_order_of_input_does_not_matter(lines, data):
    assert fit_lines(data.draw(st.permutations(lines)), END) == fit_lines(lines, END)


@settings(deadline=None)
@given(planned_lines(), st.integers(0, 30 * SECOND))
def test_lines_long_past_do_not_matter(lines, natural):
    """One line's new voice moves nothing that begins well after it: those are not generated anew."""
    first = PlannedLine("L9999", "A", 0, SECOND, SECOND)
    shifted = [PlannedLine(each.id, each.speaker, each.start + 40 * SECOND, each.end + 40 * SECOND, each.natural)
               for each in lines]
    before = fit_lines([first, *shifted], 100 * SECOND)
    after = fit_lines([PlannedLine("L9999", "A", 0, SECOND, natural + 1), *shifted], 100 * SECOND)
    assert before[1:] == after[1:]


def test_a_voice_that_fits_keeps_its_tempo_and_onset():
    fit = one(line(1, "A", 1, 3, 1.95), line(2, "A", 5, 6, 1))
    assert (fit.start, fit.length, fit.stretched, fit.overflow) == (SECOND, 1.95 * SECOND, 1.95 * SECOND, 0)


def test_the_following_pause_is_borrowed_before_the_tempo_changes():
    fit = one(line(1, "A", 1, 3, 3.5), line(2, "B", 5, 6, 1))
    assert fit.stretched == 3.5 * SECOND
    assert fit.slot == (SECOND, 5 * SECOND - GAP)


def test_what_the_pause_does_not_hold_is_sped_up_to_end_at_its_slot():
    fit = one(line(1, "A", 1, 3, 4.5), line(2, "B", 5, 6, 1))
    assert fit.start + fit.stretched == 5 * SECOND - GAP
    assert fit.overflow == 0


def test_what_the_tempo_does_not_hold_overflows_and_is_reported():
    fit = one(line(1, "A", 1, 3, 6), line(2, "B", 5, 6, 1))
    assert fit.stretched == 6 * SECOND / FASTEST
    assert fit.overflow == fit.start + fit.stretched - (5 * SECOND - GAP)
    assert fit.cut == 0


def test_a_speaker_does_not_talk_over_himself():
    first, second = fit_lines([line(1, "A", 1, 3, 6), line(2, "A", 5, 6, 1)], END)
    assert second.start == 5 * SECOND + MAX_SHIFT
    assert first.start + first.length == second.start
    assert first.cut == first.stretched - first.length > 0


def test_the_episode_ends_when_it_ends():
    fit = one(line(1, "A", 1, 3, 6), end=4 * SECOND)
    assert fit.start + fit.length == 4 * SECOND
    assert fit.cut > 0


def test_another_speaker_is_talked_over_only_where_the_source_did():
    over = one(line(1, "A", 1, 4, 3.6), line(2, "B", 3, 6, 1), line(3, "B", 8, 9, 1))
    assert over.slot[1] == 4 * SECOND, "when A ends, B still speaks: there is no pause to borrow"
    assert over.stretched == 3 * SECOND
    within = one(line(1, "A", 1, 4, 3.6), line(2, "B", 2, 3, 1), line(3, "B", 8, 9, 1))
    assert within.slot[1] == 8 * SECOND - GAP
    not_over = one(line(1, "A", 1, 4, 3.6), line(2, "B", 4.2, 6, 1))
    assert not_over.slot[1] == 4.2 * SECOND - GAP


@pytest.mark.parametrize(("natural", "stretched"), [(1.9, 1.9), (1.75, 2.0), (1.5, 1.5)])
def test_a_short_voice_is_slowed_only_where_that_reaches_the_source_lines_end(natural, stretched):
    """1.9 of 2 s is near enough; 1.75 s is slowed; 1.5 s cannot be slowed enough, so it stays as it is."""
    assert float(NEAR * 2) < 1.9
    assert one(line(1, "A", 1, 3, natural)).stretched == stretched * SECOND


def test_lines_of_one_speaker_that_begin_together_leave_no_room_for_one():
    fits = fit_lines([line(1, "A", 1, 2, 1), line(2, "A", 1, 2, 1), line(3, "A", 1, 2, 1)], END)
    assert [fit.length for fit in fits] == [MAX_SHIFT, 0, SECOND]
