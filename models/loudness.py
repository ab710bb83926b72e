"""Loudness presets: how loud a programme is delivered, and how high its peaks may be.

`r128`: EBU R 128, with the tolerance of its quality control. `netflix`: Netflix Sound Mix Specifications & Best
Practices: by dialogue-gated loudness, or by that of the programme where there is hardly any dialogue. `web`: what Apple
asks of podcasts, near which YouTube and Spotify play.
"""

from __future__ import annotations

from typing import Literal

from models.records import Loudness, Record


class Anchor(Record):
    """A loudness to reach, and by how much it may be missed."""

    lufs: float
    tolerance_lu: float


class Preset(Record):
    """What a finished mix is measured against; the values themselves enter recipes."""

    programme: Anchor
    """Integrated loudness of everything (ITU-R BS.1770-4, gated)."""
    dialogue: Anchor | None = None
    """Loudness while somebody speaks (BS.1770-1, no other gate); it goes before `programme` where there is enough."""
    least_dialogue: float = 0.15
    """Share of time with speech from which the dialogue counts."""
    true_peak_dbtp: float

    def judge(self, found: Loudness) -> tuple[str, float, Anchor]:
        """('dialogue' | 'programme', its loudness in LUFS, what it should be) of a measured sound."""
        if self.dialogue and found.dialogue_lufs is not None and (found.dialogue_share or 0) >= self.least_dialogue:
            return "dialogue", found.dialogue_lufs, self.dialogue
        return "programme", found.integrated_lufs, self.programme


PresetName = Literal["r128", "netflix", "web"]
PRESETS: dict[PresetName, Preset] = {
    "r128": Preset(programme=Anchor(lufs=-23, tolerance_lu=0.2), true_peak_dbtp=-1),
    "netflix": Preset(programme=Anchor(lufs=-24, tolerance_lu=2), dialogue=Anchor(lufs=-27, tolerance_lu=2),
                      true_peak_dbtp=-2),
    "web": Preset(programme=Anchor(lufs=-16, tolerance_lu=1), true_peak_dbtp=-1),
}
