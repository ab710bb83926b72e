"""Fitting voices to their slots: the order of means, and what holds for every episode."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fit import (
    EASY,
    FASTEST,
    GAP,
    MAX_SHIFT,
    NEAR,
    SLOWEST,
    Fit,
    Means,
    PlannedLine,
    choose_words,
    fit_lines,
    means_for,
    slots,
)
from models.timebase import CLOCK

SECOND = CLOCK
END = 60 * SECOND
GOLDEN = Path(__file__).parent / "vectors" / "timeline.json"
"""Lines of an episode as they were found and voiced once, and where each was laid."""


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
                                 draw(st.integers(1, 15 * SECOND)), kept=draw(st.integers(0, 4)) == 0))
    return lines


def overlap(a: tuple[int, int], b: tuple[int, int]) -> int:
    return min(a[1], b[1]) - max(a[0], b[0])


@settings(deadline=None)
@given(planned_lines(), st.integers(SECOND, END))
def test_what_holds_for_every_episode(lines, end):
    fits = fit_lines(lines, end)
    by_id = {line.id: line for line in lines}
    assert {fit.id for fit in fits} == {line.id for line in lines if not line.kept}
    assert all(fit.start >= min([end, *(line.start for line in lines)]) for fit in fits), "silence leads as it did"
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
def test_a_line_that_stays_in_its_slot_takes_the_time_of_nobody(lines):
    """After its source line has ended it is heard only where nobody was, kept lines included."""
    fits = fit_lines(lines, END)
    by_id = {line.id: line for line in lines}
    for fit in fits:
        source = by_id[fit.id]
        if fit.overflow or not fit.length:
            continue
        for other in lines:
            if other.start >= source.end and other.start > source.start:
                assert fit.start + fit.length <= max(other.start - GAP, source.end, fit.start)
            if other.start < source.end < other.end:
                assert fit.start + fit.length <= source.end


@settings(deadline=None)
@given(planned_lines())
def test_a_speaker_is_silent_while_his_own_voice_is_kept(lines):
    """Unless the source itself has him speak over himself."""
    kept = [line for line in lines if line.kept]
    for fit in fit_lines(lines, END):
        source = next(line for line in lines if line.id == fit.id)
        for other in kept:
            if other.speaker == source.speaker and overlap((source.start, source.end), (other.start, other.end)) <= 0 \
                    and not any(line.start < other.end and line.end > other.start for line in lines if line != other):
                assert overlap((fit.start, fit.start + fit.length), (other.start, other.end)) <= 0


@settings(deadline=None)
@given(planned_lines(), st.lists(st.integers(1, 15 * SECOND), min_size=1, max_size=5))
def test_gentler_means_come_first(lines, lengths):
    """Other words, then the pause, then the tempo: no wording is hurried while another one fits without."""
    for line in lines:
        slot = slots(lines, END)[line.id]
        chosen = lengths[choose_words(lengths, line, slot)]
        means = [means_for(length, line, slot) for length in lengths]
        assert means_for(chosen, line, slot) == min(means)
        stretched = chosen / max(slot[1] - slot[0], 1)
        if stretched > EASY:
            assert all(length > EASY * (slot[1] - slot[0]) for length in lengths)
        if min(means) is Means.OVERFLOW:
            assert chosen == min(lengths)
        else:
            assert lengths.index(chosen) == means.index(min(means)), "of equals, the best worded"


@settings(deadline=None)
@given(st.integers(1, 10 * SECOND), st.integers(1, 15 * SECOND), st.integers(0, 5 * SECOND))
def test_the_tempo_is_what_the_means_say(own, natural, pause):
    """What was promised when words were chosen is what the planner does with them."""
    first = PlannedLine("L0001", "A", SECOND, SECOND + own, natural)
    lines = [first, PlannedLine("L0002", "B", SECOND + own + pause, SECOND + own + pause + 1, 1)]
    means, fit = means_for(natural, first, slots(lines, END)["L0001"]), one(*lines)
    tempo = natural / fit.stretched
    assert {Means.NONE: tempo <= 1, Means.BORROWED: tempo == 1, Means.STRETCHED: 1 < tempo <= EASY,
            Means.HURRIED: EASY < tempo <= FASTEST, Means.OVERFLOW: fit.overflow > 0}[means]


@settings(deadline=None)
@given(planned_lines(), st.integers(SECOND, END))
def test_nothing_is_done_to_a_voice_without_need(lines, end):
    """It is late only after its speaker has spoken, sped up or slowed no more than its slot asks, and cut only where he
    speaks again."""
    fits = fit_lines(lines, end)
    by_id = {line.id: line for line in lines}
    for fit in fits:
        source = by_id[fit.id]
        own = [line for line in lines if line.speaker == source.speaker and line.id != fit.id]
        laid = [each for each in fits if by_id[each.id] in own]
        last = fit.start + fit.stretched
        if fit.start > source.start:
            assert fit.start in {each.start + each.length for each in laid} or any(
                line.kept and line.start <= fit.start <= line.end for line in own)
        if fit.stretched < source.natural:
            assert last == fit.slot[1] or fit.stretched - 1 < source.natural / FASTEST <= fit.stretched
        if fit.stretched > source.natural:
            assert last == min(source.end, fit.slot[1])
        if fit.cut and fit.length:
            again = {line.start if line.kept else line.start + MAX_SHIFT for line in own}
            assert fit.start + fit.length in again | {end}


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


def test_a_kept_line_is_not_laid_and_its_time_not_taken():
    """The line before ends where it begins, and the line after begins where it did."""
    kept = PlannedLine("L0002", "A", 4 * SECOND, 6 * SECOND, 2 * SECOND, kept=True)
    first, third = fit_lines([line(1, "A", 1, 3, 9), kept, line(3, "A", 7, 8, 1)], END)
    assert (first.id, third.id) == ("L0001", "L0003")
    assert first.slot[1] == 4 * SECOND - GAP
    assert first.start + first.length == 4 * SECOND
    assert third.start == 7 * SECOND


def test_kept_lines_between_lines_that_begin_together_leave_no_overlap():
    lines = [line(1, "A", 1, 1, 1), line(2, "A", 1, 1, 1), PlannedLine("L0003", "A", SECOND, SECOND, 0, kept=True),
             line(4, "A", 1, 2, 1)]
    fits = fit_lines(lines, END)
    assert all(a.start + a.length <= b.start for a, b in pairwise(fits))


def test_ten_thousand_lines_are_fitted():
    lines = [line(n, "AB"[n % 2], 2 * n, 2 * n + 1.5, 2.5) for n in range(10_000)]
    fits = fit_lines(lines, 30_000 * SECOND)
    assert len(fits) == 10_000
    assert all(fit.start == each.start for fit, each in zip(fits, lines, strict=True))


def test_the_recorded_time_line_is_laid_as_it_was():
    """A release that lays lines elsewhere has to say so here."""
    golden = json.loads(GOLDEN.read_text())
    fits = {fit.id: fit for fit in fit_lines([PlannedLine(**each) for each in golden["lines"]], golden["end"])}
    laid = {name: (fit.start, fit.stretched, fit.length, fit.overflow) for name, fit in fits.items()}
    assert max(abs(laid[name][0] - start) for name, (start, *_) in golden["laid"].items()) == 0
    assert laid == {name: tuple(each) for name, each in golden["laid"].items()}
