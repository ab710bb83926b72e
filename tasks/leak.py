"""Leak: how much of the source's voice is still heard in the bed of the dub.

In the pauses of the source there is only its bed: they say how the given bed lies in it (how loud, and how late). What
the source has beyond that in a line is its voice, and as far as the bed is correlated with that voice, it leaks. Found
by trial on stems whose truth is known: docs/mix.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from models.records import Leak
from models.timebase import CLOCK
from tasks.ambience import pauses
from tasks.levels import Sound, Span, to_layout

LEAK_DB = -30.0
"""From here on a voice counts as heard: beds mostly lie 10 to 20 dB below the voice, and the dub lies on top."""
NOTHING_DB = -60.0
"""What is measured where nothing leaks lies between here and -45."""
STEP = 3
"""Of so many samples one is enough: 16 kHz."""
BAND = 300, 4000
"""Hz: what makes speech intelligible, and where it is louder than most beds."""
LATE = round(0.030 * CLOCK / STEP)
"""By how much bed and source may be apart, either way, in samples at 16 kHz."""
LIKE = 0.5
"""Correlation in the pauses from which the bed counts as that of the source; another one is not taken off."""
ALL_DB = 15.0
"""Where the bed explains the source but for so little, nothing was taken out of it."""
SMOOTH_HZ, FLAT = 40, 0.1
"""Width over which the bed's spectrum is taken together, and the share of its mean below which it is left as it is."""
SHORTEST, LONGEST = CLOCK // 3, 20 * CLOCK
"""Ticks of a line that are enough, and that are looked at."""
MOST_PAUSES = 40

Read = Callable[[int, int], NDArray[np.float64]]


def find_leak(source: Path, bed: Path, gain_db: float, lines: Mapping[str, Span], spoken: Iterable[Span],
              length: int) -> Leak | None:
    """Look for the source's voice in a bed.

    Args:
        source: The source's sound, FLAC at 48 kHz.
        bed: The bed as it is in the mix, as long as the source.
        gain_db: The gain of the mix.
        lines: Line id → where the source says it: of the lines whose voice should be gone.
        spoken: Where the source speaks at all.
        length: Ticks of both.

    Returns:
        The worst line, never below NOTHING_DB; None where nothing can be compared: the source does not speak, does not
        pause, or only for moments.
    """
    sound, below = _reader(source, 1.0), _reader(bed, float(10 ** (-gain_db / 20)))
    quiet = list(pauses(spoken, length))
    quiet = quiet[::max(1, len(quiet) // MOST_PAUSES)]
    voiced = {name: (start, min(end, start + LONGEST, length)) for name, (start, end) in lines.items()}
    voiced = {name: span for name, span in voiced.items() if span[1] - span[0] >= SHORTEST}
    if not quiet or not voiced:
        return None
    share, late = _lie(sound, below, quiet)
    found = [Leak(db=round(db, 1), line=name, at=start) for name, (start, end) in voiced.items()
             if (db := _leak_db(sound(start, end), below(start - late, end - late), share)) is not None]
    return max(found, key=lambda leak: leak.db, default=None)


def _reader(path: Path, gain: float) -> Read:
    from scipy.signal import butter, resample_poly, sosfilt

    band = butter(4, BAND, "bandpass", fs=CLOCK / STEP, output="sos")

    def read(start: int, end: int) -> NDArray[np.float64]:
        """Ticks [start, end) in the band of speech → (n, 2) at 16 kHz; zeros outside the file."""
        with soundfile.SoundFile(path) as file:
            file.seek(min(max(start, 0), len(file)))
            block: Sound = file.read(max(end - max(start, 0), 0), dtype="float32", always_2d=True, fill_value=0)
        whole = np.pad(to_layout(block, 2), ((end - start - len(block), 0), (0, 0)))
        return np.asarray(sosfilt(band, resample_poly(whole.astype(np.float64) * gain, 1, STEP, axis=0), axis=0))

    return read


def _lie(sound: Read, below: Read, quiet: Sequence[Span]) -> tuple[float, int]:
    """How the bed lies in the source: its share (negative: inverted), and by how many ticks it comes too early."""
    both, alone, total = np.zeros(2 * LATE + 1), 0.0, 0.0
    for start, end in quiet:
        heard, bed = sound(start, end), below(start, end)
        both += _correlation(heard, bed)
        alone, total = alone + float((bed**2).sum()), total + float((heard**2).sum())
    at = int(np.abs(both).argmax())
    if abs(both[at]) < LIKE * max(np.sqrt(alone * total), 1e-12):
        return 0.0, 0
    return float(both[at] / alone), (at - LATE) * STEP


def _leak_db(heard: NDArray[np.float64], bed: NDArray[np.float64], share: float) -> float | None:
    """The voice's level in the bed against that in the source; None where the source is silent."""
    voice = heard - share * bed
    power, whole = float((voice**2).sum()), float((heard**2).sum())
    if whole < 1e-10 * len(heard):
        return None
    if power < whole * 10 ** (-ALL_DB / 10):
        return 0.0
    bed, voice = _evened(bed, voice)
    found = _correlation(bed, voice) / max(float((voice**2).sum()), 1e-12)
    most = float(found[np.abs(found).argmax()])
    part = abs(most) / max(abs(1 + share * most), 1e-3)  # `voice` lacks what was taken off it with the bed
    return float(np.clip(20 * np.log10(max(part, 1e-9)), NOTHING_DB, 0.0))


def _evened(bed: NDArray[np.float64], voice: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both with the filter that makes the bed's spectrum flat: a hum is like many a voice by mere chance."""
    from scipy.ndimage import uniform_filter1d

    spectrum = np.fft.rfft(bed, axis=0)
    power = uniform_filter1d((np.abs(spectrum) ** 2).sum(axis=1), max(1, round(SMOOTH_HZ * len(bed) * STEP / CLOCK)))
    weight = 1 / np.sqrt(power + power.mean() * FLAT + 1e-12)
    filtered = (spectrum * weight[:, None], np.fft.rfft(voice, axis=0) * weight[:, None])
    evened = [np.fft.irfft(one, len(bed), axis=0) for one in filtered]
    return evened[0], evened[1]


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of two sounds (n, 2) for each delay of `a` behind `b` from -LATE to LATE → (2 LATE + 1,)."""
    from scipy.signal import correlate

    pads = np.pad(a, ((LATE, LATE), (0, 0)))
    return np.asarray(sum(correlate(pads[:, side], b[:, side], mode="valid", method="fft") for side in (0, 1)))
