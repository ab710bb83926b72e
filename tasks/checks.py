"""What is checked on finished files: every check's name, what it says, its unit, and whether it holds a delivery up.

The figures are taken in `checks_picture`, `checks_sound` and `checks_text`; bars stand beside them, with their source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from models.records import Check


class Kind(NamedTuple):
    """What every result of one check has in common."""

    what: str
    unit: str
    gate: bool = True


KINDS: Mapping[str, Kind] = {
    # the file
    "frames": Kind("The picture has as many frames as the source.", "frames"),
    "rate": Kind("Frames follow each other as fast as in the source.", "fps"),
    "duration_s": Kind("The file lasts as long as the source.", "s"),
    "audio_length_ms": Kind("The sound is as long as the picture.", "ms"),
    "av_start_ms": Kind("The sound begins with the first frame.", "ms"),
    "av_offset_ms": Kind("What is heard lies where it was mixed to lie, all through the file.", "ms"),
    # the picture
    "black_s": Kind("No frame is black that is not black in the source.", "s"),
    "frozen_s": Kind("The picture does not stand still where the source moves.", "s"),
    "passthrough": Kind("Shots that were passed on look as in the source.", "levels of luma"),
    "shot_edges": Kind("Shots change at the same frames as in the source.", "edges"),
    "seam": Kind("The picture does not jump where chunks join: change there against that elsewhere.", "times"),
    "colour_drift": Kind("Colours of generated shots do not wander away from the source's.", "levels"),
    "outside": Kind("Nothing changed but the speaker: difference to the source outside of his region.",
                    "levels of luma"),
    "identity": Kind("Generated faces are the same person as in the source.", "distance"),
    "sync": Kind("Lips that were generated follow the voice that is heard.", ""),
    # the sound
    "silent_s": Kind("The sound does not drop out where something is to be heard.", "s"),
    "loudness_lufs": Kind("The programme is as loud as the preset asks for.", "LUFS"),
    "dialogue_lufs": Kind("Dialogue is as loud as the preset asks for.", "LKFS"),
    "true_peak_dbtp": Kind("No peak is above the preset's ceiling.", "dBTP"),
    "leak_db": Kind("The source's voice is not heard in the bed: its level there against that in the source.", "dB",
                    gate=False),
    # lines
    "onset_within_120ms": Kind("Lines begin within 120 ms of their source lines, heard in the dialogue stem.",
                               "of lines"),
    "coverage": Kind("Every line is heard in the dialogue stem.", "of lines"),
    "overlaps": Kind("Nobody speaks over himself.", "pairs"),
    "stretch": Kind("No voice was sped up or slowed down beyond what sounds natural.", "times"),
    "stretched_over_1_15": Kind("Few lines sound hurried.", "of lines", gate=False),
    "overflow_lines": Kind("Voices end before their slots do.", "lines", gate=False),
    "back_wer": Kind("What is said is understood: word errors of the dialogue stem transcribed back.", ""),
    "back_wer_lines": Kind("No single line is misunderstood for the most part.", "lines", gate=False),
    "glossary": Kind("Terms of the glossary are in the lines that need them.", "lines"),
    # subtitles
    "subtitle_speed": Kind("Subtitles can be read in the time they are shown.", "cues", gate=False),
    "subtitle_width": Kind("Rows of subtitles are not too long.", "cues"),
    "subtitle_rows": Kind("Subtitles have no more rows than fit under a picture.", "cues"),
    "subtitle_time": Kind("Subtitles are shown neither too briefly nor too long.", "cues"),
    "subtitle_gap": Kind("Subtitles do not run into each other.", "cues"),
}
"""Name → what it is, in the order of reports."""

GROUPS: Mapping[str, str] = {"frames": "File", "black_s": "Picture", "silent_s": "Sound", "onset_within_120ms": "Lines",
                             "subtitle_speed": "Subtitles"}
"""First check of each group of a report → the group's heading."""


def check(name: str, value: float, bar: str, passed: bool, worst: str = "", at: int | None = None) -> Check:
    """A check that was made; `at` is the tick of the worst place."""
    kind = KINDS[name]
    return Check(name=name, what=kind.what, value=round(float(value), 4), unit=kind.unit, bar=bar, passed=bool(passed),
                 worst=worst, at=None if at is None else max(0, int(at)), gate=kind.gate)


def at_most(name: str, value: float, bar: float, worst: str = "", at: int | None = None) -> Check:
    """A check whose value may be `bar` and no more."""
    return check(name, value, f"≤ {bar:g}" if bar else "= 0", value <= bar, worst, at)


def not_made(name: str, why: str) -> Check:
    """A check that could not be made."""
    kind = KINDS[name]
    return Check(name=name, what=kind.what, unit=kind.unit, passed=False, gate=kind.gate, why=why)
