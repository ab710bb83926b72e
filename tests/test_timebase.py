"""Time: frames and ticks agree at every rate that is dubbed."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from models.timebase import CLOCK, Rate, frame_to_ticks, generation_divisor, ticks_to_frame, timecode

RATES = [Fraction(r) for r in ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")]


@given(st.sampled_from(RATES), st.integers(0, 10**7))
def test_every_frame_is_found_again_at_its_own_first_and_last_tick(rate, frame):
    begin, end = frame_to_ticks(frame, rate), frame_to_ticks(frame + 1, rate)
    assert ticks_to_frame(begin, rate) == frame
    assert ticks_to_frame(end - 1, rate) == frame


@given(st.sampled_from(RATES), st.integers(1, 10**6))
def test_positions_never_drift_from_the_rational_time(rate, frame):
    assert abs(frame_to_ticks(frame, rate) - Fraction(frame * CLOCK) / rate) <= Fraction(1, 2)


@pytest.mark.parametrize(("rate", "divisor"), zip(RATES, [1, 1, 1, 1, 1, 2, 2, 2], strict=True))
def test_generation_rate_is_the_smallest_division_to_30_or_less(rate, divisor):
    assert generation_divisor(rate) == divisor


@pytest.mark.parametrize("wrong", [0, -25, "abc", 23.976, "1/0", 5000, "1e1", "1e999999999", "25.0", " 25", "2_5",
                                   True, "1" * 11])
def test_a_rate_is_a_positive_rational(wrong):
    with pytest.raises(ValidationError):
        TypeAdapter(Rate).validate_python(wrong)


def test_timecodes():
    assert timecode(3661 * CLOCK + CLOCK // 2) == "01:01:01.500"
    assert timecode(0, mark=",") == "00:00:00,000"
