"""Synthesizer: espeak-ng, run as a program. Any language, robotic, a hundred times faster than real time."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from models.engines.options import Adapter
from models.errors import EngineError, InputError, SetupError
from models.ports import Samples, Voice

INSTALL = "the program espeak-ng is missing. Install it: sudo apt-get install espeak-ng"
VARIANTS = {"f2": "female", "m3": "male", "f4": "female", "m1": "male", "f1": "female", "m7": "male", "f5": "female",
            "m4": "male"}
"""Voices of every language, best first, as alternating genders."""
NAMES = {"en": "en-us", "fr": "fr-fr", "zh": "cmn", "no": "nb"}
"""BCP-47 language → espeak's name of what most people mean by it."""
WORDS_PER_MINUTE = 165
TIMEOUT = 60
"""Seconds for one line."""


class Espeak(Adapter):
    """The explicit fast choice. Voices are variants ('f2', 'm3' …)."""

    VERSION = 2
    sample_rate = 22_050

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Whether the program is there."""
        return "" if shutil.which("espeak-ng") else INSTALL

    @classmethod
    def speaks(cls, language: str) -> bool:
        """Whether it has the language, as far as can be told without weights."""
        return not cls.missing({}) and bool(espeak_name(language))

    def voices(self, language: str) -> tuple[Voice, ...]:
        """The same variants in every language."""
        return tuple(Voice(name, language, gender) for name, gender in VARIANTS.items()) \
            if espeak_name(language) else ()

    def weights_of(self, voice: str) -> frozenset[str]:
        """None: there are none of the lock."""
        return frozenset()

    def check_voice(self, voice: str, language: str) -> None:
        """One of the variants (see `models.ports.Synthesizer`)."""
        if not espeak_name(language) or voice not in VARIANTS:
            raise InputError(f"espeak has no voice {voice!r} for {language}", hint=f"There are: {', '.join(VARIANTS)}")

    def speak(self, text: str, voice: str, language: str, speed: float = 1.0) -> Samples:
        """Voice `text` at 22,050 Hz → (N,) (see `models.ports.Synthesizer`)."""
        import soundfile

        self.check_voice(voice, language)
        name = espeak_name(language)
        if not any(map(str.isalnum, text)):
            raise EngineError("there is nothing to say", where=text[:40])
        rate = str(round(WORDS_PER_MINUTE * speed))
        # by its file: given as languages, 'fr-fr' and 'en-gb' are spoken without their variants (1.51)
        data = run_espeak(["-v", f"{espeak_languages()[name]}+{voice}", "-s", rate, "--stdin", "--stdout"], text)
        samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        if not samples.size or float(np.abs(samples).max()) < 1e-3:
            raise EngineError("espeak-ng said nothing", where=text[:40])
        return np.asarray(samples, np.float32)


def run_espeak(arguments: Sequence[str], text: str) -> bytes:
    """Run espeak-ng on `text` (given on its standard input) and return what it prints.

    Raises:
        SetupError: The program is missing.
        EngineError: It failed.
    """
    try:
        command = ["espeak-ng", *arguments]
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=TIMEOUT,
                              check=False)
    except FileNotFoundError:
        raise SetupError(INSTALL) from None
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"espeak-ng did not finish within {TIMEOUT} s", where=text[:40]) from error
    if done.returncode:
        raise EngineError(f"espeak-ng failed: {done.stderr.decode(errors='replace').strip()[-200:]}", where=text[:40])
    return done.stdout


@cache
def espeak_languages() -> Mapping[str, str]:
    """Espeak's names of the languages it speaks, lower case → the file of each."""
    listed = run_espeak(["--voices"], "").decode(errors="replace")
    rows = re.findall(r"^ *\d+ +(\S+) +\S+ +\S+ +(\S+)", listed, re.MULTILINE)
    return {name.lower(): file for name, file in reversed(rows)}  # of two the first one holds


def espeak_name(language: str) -> str:
    """Espeak's name of a BCP-47 language, the nearest region; '' when it does not speak it."""
    tag = language.lower()
    primary = tag.partition("-")[0]
    for name in (tag, NAMES.get(primary, primary), primary):
        if name in espeak_languages():
            return name
    return ""
