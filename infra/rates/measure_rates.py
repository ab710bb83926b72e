"""Measures how fast the embedded voices speak, and makes `models/rates.json` of it.

Every voice says every sentence of `sentences.json`. `lengths.json` keeps what was measured; delete it to measure anew,
else only what is missing is. Then the paces are fitted, and the errors printed of sentences left out of the fit.
A new table makes other estimates: raise the versions of the steps that use them (translate, synthesize).

    nice python infra/rates/measure_rates.py     # an hour on two cores; a second when nothing is missing
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engines.espeak import Espeak
from models.engines.kokoro import Kokoro
from models.onset import trim
from models.ports import EngineHome, Synthesizer
from models.rates import TABLE, measures
from models.records import EngineRef

HERE = Path(__file__).parent
LENGTHS = HERE / "lengths.json"
WEIGHTS = Path("~/.cache/infinidub/weights").expanduser()
SENTENCES: dict[str, list[str]] = json.loads((HERE / "sentences.json").read_text())
FIELDS = ("start", "letter", "comma", "stop")


def main() -> None:
    """Measure, fit, print, write."""
    lengths = measure()
    languages: dict[str, dict[str, Any]] = {}
    print(f"{'':12} voices  {'  '.join(FIELDS)}   sentence left out                          voice not known")
    for language in SENTENCES:
        for engine in ("kokoro", "espeak"):
            found = lengths_of(lengths, engine, language)
            if not found.size:
                continue
            sizes = matrix(language)
            pace, shares = fit(sizes, found)
            unknown = np.abs((sizes @ pace)[None] / found - 1)
            print(f"{engine:8}{language:4}{len(found):6}   {'  '.join(f'{value:5.3f}' for value in pace)}   "
                  f"{figures(left_out(sizes, found))}   {figures(unknown[~np.isnan(unknown)])}")
            names = [key.split("/", 2)[2] for key in keys(lengths, engine, language)]
            languages.setdefault(language, {})[engine] = dict(zip(FIELDS, map(rounded, pace), strict=True)) | {
                "voices": dict(zip(names, map(rounded, shares), strict=True))}
    firsts = [next(iter(paces.values())) for paces in languages.values()]
    default = {name: rounded(float(np.median([pace[name] for pace in firsts]))) for name in FIELDS}
    TABLE.write_text(compact({"default": default, "languages": languages}))


# -- measuring --------------------------------------------------------------------------------------------------------


def measure() -> dict[str, list[float | None]]:
    """'engine/language/voice' → seconds of each sentence, silence trimmed; None where it was not said."""
    lengths: dict[str, list[float | None]] = json.loads(LENGTHS.read_text()) if LENGTHS.exists() else {}
    for key, engine, language, voice in to_say():
        said = lengths.setdefault(key, [None] * len(SENTENCES[language]))
        missing = [number for number, seconds in enumerate(said) if seconds is None]
        for number in missing:
            samples = engine.speak(SENTENCES[language][number], voice, language)
            said[number] = round(len(trim(samples, engine.sample_rate)) / engine.sample_rate, 3)
        if missing:
            print(key, said, flush=True)
            LENGTHS.write_text(compact(lengths))
    return lengths


def to_say() -> Iterator[tuple[str, Synthesizer, str, str]]:
    """Whose length is to be measured: key, synthesizer, language, voice."""
    home = EngineHome(weights=WEIGHTS.joinpath, threads=1)
    engines: dict[str, Synthesizer] = {"espeak": Espeak(EngineRef(name="espeak"), home),
                                       "kokoro": Kokoro(EngineRef(name="kokoro"), home)}
    for name, engine in engines.items():
        for language in SENTENCES:
            for voice in engine.voices(language):
                yield f"{name}/{language}/{voice.id}", engine, language, voice.id


# -- fitting ----------------------------------------------------------------------------------------------------------


def keys(lengths: dict[str, list[float | None]], engine: str, language: str) -> list[str]:
    """Keys of what was measured of a synthesizer's voices in a language."""
    return [key for key in lengths if key.startswith(f"{engine}/{language}/")]


def lengths_of(lengths: dict[str, list[float | None]], engine: str, language: str) -> NDArray[np.float64]:
    """Seconds → (voices, sentences), NaN where nothing was said."""
    return np.array([lengths[key] for key in keys(lengths, engine, language)], np.float64)


def matrix(language: str) -> NDArray[np.float64]:
    """1, letters, commas and stops of every sentence → (sentences, 4)."""
    return np.array([(1, *measures(text, language)) for text in SENTENCES[language]], np.float64)


def fit(sizes: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pace (4,) that the voices share, and the share (voices,) of each: seconds ≈ share · sizes · pace.

    Least squares between absolute and relative error, nothing negative; shares are medians, in turns.
    """
    from scipy.optimize import nnls

    shares, pace = np.ones(len(found)), np.zeros(4)
    known = ~np.isnan(found)
    for _ in range(20):
        rows = (shares[:, None, None] * sizes[None])[known]
        weights = found[known] ** -0.75
        pace, _ = nnls(rows * weights[:, None], found[known] * weights)
        shares = np.nanmedian(found / (sizes @ pace), axis=1)
        shares /= np.median(shares)
    return pace, shares


def left_out(sizes: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative errors on each sentence, estimated from all others."""
    errors: list[NDArray[np.float64]] = []
    for number in range(len(sizes)):
        others = np.arange(len(sizes)) != number
        known = ~np.isnan(found[:, others]).all(axis=1)  # voices that said nothing else have no share
        pace, shares = fit(sizes[others], found[known][:, others])
        errors.append(np.abs(shares * (sizes[number] @ pace) / found[known, number] - 1))
    flat: NDArray[np.float64] = np.concatenate(errors)
    return flat[~np.isnan(flat)]


# -- words ------------------------------------------------------------------------------------------------------------


def figures(errors: NDArray[np.float64]) -> str:
    """Median, 90th percentile and worst of relative errors."""
    return f"median {np.median(errors):5.1%}, 90 % {np.quantile(errors, 0.9):5.1%}, worst {errors.max():5.1%}"


def rounded(value: float) -> float:
    """As the table holds it."""
    return round(float(value), 3 if value > 0.2 else 4)


def compact(value: dict[str, Any]) -> str:
    """JSON with a line for each innermost list or object."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"([\[{])([^\[\]{}]*)([\]}])", lambda m: m[1] + " ".join(m[2].split()) + m[3], text) + "\n"


if __name__ == "__main__":
    main()
