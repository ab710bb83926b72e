"""Synthesizer: Kokoro-82M (int8) on onnxruntime, with espeak-ng's phonemes. About real time on two cores.

Kokoro was trained on phonemes of misaki, which for most languages are espeak's IPA with diphthongs and affricates
written as one letter each; punctuation stays, since it shapes the melody. One session serves all voices.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.engines.espeak import INSTALL, run_espeak
from models.engines.options import Adapter
from models.errors import EngineError, InputError
from models.onset import trim
from models.ports import EngineHome, Samples, Voice
from models.records import EngineRef

MODEL = "kokoro-v1.0.int8.onnx"
LANGUAGES = {"a": ("en-US", "en-us"), "b": ("en-GB", "en-gb"), "e": ("es", "es"), "f": ("fr", "fr-fr"),
             "h": ("hi", "hi"), "i": ("it", "it"), "p": ("pt-BR", "pt-br")}
"""First letter of a voice → the language it grew up with (BCP-47), and espeak's name of that."""
BEST = ("af_heart", "am_michael", "bf_emma", "bm_george", "af_bella", "am_fenrir", "am_puck", "bm_fable", "af_nicole",
        "ef_dora", "em_alex", "ff_siwis", "if_sara", "im_nicola", "pf_dora", "pm_alex", "hf_alpha", "hm_omega")
"""Voices to take first; the others follow in order of their names."""
BLENDS = {"fr": ("im_nicola+ff_siwis", "if_sara+ff_siwis", "pm_alex+ff_siwis", "ef_dora+ff_siwis"),
          "it": ("em_alex+im_nicola", "ef_dora+if_sara"), "es": ("im_nicola+em_alex", "if_sara+ef_dora"),
          "pt": ("em_alex+pm_alex", "ef_dora+pf_dora")}
"""More voices of languages that have few, French has no man: a neighbour's voice, blended with a native one. Alone, the
neighbours are hard to understand (word error rate of French transcribed back: 0.48 alone, 0.03 blended)."""
BLEND = np.float32(2 / 3)
"""Share of the first voice."""
PACE = {"ff_siwis": 0.85}
"""Native voice → speed of its blends: at its own haste a foreign tongue is not understood (0.18 against 0.01)."""

LONGEST = 510
"""Phonemes that the model takes at once."""
PAUSE = 0.25
"""Seconds between parts of a text that is longer."""

_RUNS = {1: ";:,.!?", 9: "—…\"()“” \u0303ʣʥʦʨᵝꭧAI", 31: "O", 33: "Q", 35: "ST", 39: "W", 41: "Yᵊabcdef",
         50: "hijklmnopqrstuvwxyzɑɐɒæ", 75: "βɔɕç", 80: "ɖðʤə", 85: "ɚɛɜ", 90: "ɟ", 92: "ɡ", 99: "ɥ", 101: "ɨɪʝ",
         110: "ɯɰŋɳɲɴø", 118: "ɸθœ", 123: "ɹ", 125: "ɾɻ", 128: "ʁɽʂʃʈʧ", 135: "ʊʋ", 138: "ʌɣɤ", 142: "χʎ",
         147: "ʒʔ", 156: "ˈˌː", 162: "ʰ", 164: "ʲ", 169: "↓", 171: "→↗↘", 177: "ᵻ"}
TOKENS = {phoneme: start + index for start, run in _RUNS.items() for index, phoneme in enumerate(run)}
"""Kokoro's vocabulary: phoneme → token; 0 marks both ends."""
ONE_LETTER = {"a^ɪ": "I", "a^ʊ": "W", "d^z": "ʣ", "d^ʒ": "ʤ", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "s^s": "S",
              "t^s": "ʦ", "t^ʃ": "ʧ", "ɔ^ɪ": "Y"}
"""What misaki writes for espeak's tied sounds."""
ENGLISH = (("ʔˌn\u0329", "tn"), ("ʔn\u0329", "tn"), ("ʔn", "tn"), ("ʔ", "t"), ("ə^l", "ᵊl"), ("ʲo", "jo"),
           ("ʲə", "jə"), ("ʲ", ""), ("ɚ", "əɹ"), ("r", "ɹ"), ("x", "k"), ("ç", "k"), ("ɐ", "ə"), ("ɬ", "l"),
           ("\u0303", ""))
"""Sounds that its English does without."""
AMERICAN = (("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("ɾ", "T"))
BRITISH = (("e^ə", "ɛː"), ("iə", "ɪə"))
SIGNS = {"«": "“", "»": "”", "–": "—", "„": "“", "¿": "", "¡": "", "‘": "", "。": ".", "、": ",", "！": "!", "？": "?",
         "।": "."}
PUNCTUATION = re.compile(r"(\s*(?:[;!?—…\"()“”]|[:,](?!\d)|\.(?!\w))+\s*)")


class Kokoro(Adapter):
    """Voices by name ('ef_dora'), or two blended ('im_nicola+ff_siwis'); each speaks any of the languages."""

    sample_rate = 24_000

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._folder: Path = home.weights("kokoro")
        self._threads, self._weights = home.threads, frozenset(ref.weights)

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Model and voices."""
        return ("kokoro",)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Whether onnxruntime and espeak-ng are there."""
        from importlib.util import find_spec

        if find_spec("onnxruntime") is None:
            return "the library onnxruntime is missing. Install it: pip install 'infinidub[embedded]'"
        return "" if shutil.which("espeak-ng") else INSTALL

    @classmethod
    def speaks(cls, language: str) -> bool:
        """Whether it has the language."""
        return bool(_letters(language))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        names = sorted(path.stem for path in (self._folder / "voices").glob("*.bin"))
        return tuple(sorted(names, key=lambda name: BEST.index(name) if name in BEST else len(BEST)))

    def voices(self, language: str) -> tuple[Voice, ...]:
        """Voices of the language and region first, then those of its other regions, then blends."""
        own = [name for letter in _letters(language) for name in self._names if name[0] == letter]
        blends = [name for name in BLENDS.get(_primary(language), ()) if self._known(name)]
        return tuple(Voice(name, LANGUAGES[name.split("+")[-1][0]][0], "female" if name[1] == "f" else "male")
                     for name in [*own, *blends])

    def weights_of(self, voice: str) -> frozenset[str]:
        """The model's, and those of the voice, or of the two that it blends."""
        own = {f"kokoro/voices/{part}.bin" for part in voice.split("+")}
        return frozenset(name for name in self._weights if "/voices/" not in name or name in own)

    def check_voice(self, voice: str, language: str) -> None:
        """One of the voices, of any language, or a blend of two (see `models.ports.Synthesizer`)."""
        if not _letters(language) or not self._known(voice):
            known = ", ".join(v.id for v in self.voices(language)) or ", ".join(self._names)
            raise InputError(f"kokoro has no voice {voice!r} for {language}", hint=f"There are: {known}")

    def _known(self, voice: str) -> bool:
        parts = voice.split("+")
        return len(parts) <= 2 and all(part in self._names for part in parts)

    def speak(self, text: str, voice: str, language: str, speed: float = 1.0) -> Samples:
        """Voice `text` at 24 kHz → (N,), silence trimmed (see `models.ports.Synthesizer`)."""
        self.check_voice(voice, language)
        letters = _letters(language)
        if not any(map(str.isalnum, text)):
            raise EngineError("there is nothing to say", where=text[:40])
        pause = np.zeros(round(PAUSE * self.sample_rate), np.float32)
        parts: list[Samples] = []
        for phonemes in split_phonemes(phonemize(text, letters[0])):
            audio = trim(self._run(phonemes, voice, speed), self.sample_rate)
            parts += [pause, audio] if parts else [audio]
        if not parts or not sum(map(len, parts)):
            raise EngineError("kokoro said nothing", where=text[:40])
        return np.concatenate(parts)

    def _run(self, phonemes: str, voice: str, speed: float) -> Samples:
        tokens = [TOKENS[phoneme] for phoneme in phonemes]
        styles = self._style(voice)
        audio, = self._session.run(None, {
            "tokens": np.array([[0, *tokens, 0]], np.int64), "style": styles[min(len(tokens), len(styles)) - 1][None],
            "speed": np.array([speed * PACE.get(voice.partition("+")[2], 1.0)], np.float32)})
        return np.asarray(audio, np.float32).ravel()

    @cache  # noqa: B019 (an engine lives as long as its process)
    def _style(self, voice: str) -> NDArray[np.float32]:
        """Style vectors of a voice by number of phonemes → (510, 256)."""
        first, _, second = voice.partition("+")
        if second:
            return BLEND * self._style(first) + (1 - BLEND) * self._style(second)
        return np.fromfile(self._folder / "voices" / f"{voice}.bin", np.float32).reshape(-1, 256)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(self._folder / MODEL), options, providers=["CPUExecutionProvider"])


def _primary(language: str) -> str:
    return language.partition("-")[0].lower()


def _letters(language: str) -> list[str]:
    """Letters of the voices that speak a BCP-47 language, its own region first."""
    same = [letter for letter, (tag, _) in LANGUAGES.items() if _primary(tag) == _primary(language)]
    return sorted(same, key=lambda letter: LANGUAGES[letter][0].lower() != language.lower())


def phonemize(text: str, letter: str) -> str:
    """Text as Kokoro's phonemes, punctuation kept.

    Args:
        text: Anything; figures are read out.
        letter: Key of `LANGUAGES`.
    """
    for sign, plain in SIGNS.items():
        text = text.replace(sign, plain)
    pieces = PUNCTUATION.split(" ".join(text.split()))
    spoken = [_ipa(piece, letter) if index % 2 == 0 else piece for index, piece in enumerate(pieces)]
    phonemes = re.sub(r"\s+", " ", "".join(spoken))
    return "".join(phoneme for phoneme in phonemes if phoneme in TOKENS).strip()


@cache
def _ipa(words: str, letter: str) -> str:
    """Words without punctuation as phonemes."""
    if not any(c.isalnum() for c in words):
        return ""
    printed = run_espeak(["-q", "--ipa", "--tie=^", "-v", LANGUAGES[letter][1], "--stdin"], words).decode()
    ipa = re.sub(r"\([^)]*\)", "", " ".join(printed.split()))  # espeak notes there when it changes its language
    english = (*ENGLISH, *(AMERICAN if letter == "a" else BRITISH)) if letter in "ab" else ()
    for tied, one in [*ONE_LETTER.items(), *english]:
        ipa = ipa.replace(tied, one)
    return ipa.replace("^", "").replace("-", "").replace("g", "ɡ")


def split_phonemes(phonemes: str, longest: int = LONGEST) -> Iterator[str]:
    """Cut phonemes into parts that the model can take: after a sentence, else a clause, else a word."""
    while len(phonemes) > longest:
        head = phonemes[:longest]
        cut = next((at for at in (max(map(head.rfind, signs)) for signs in (".!?…", ":;", ",—", " ")) if at > 0),
                   longest - 1) + 1
        yield phonemes[:cut].strip()
        phonemes = phonemes[cut:].strip()
    if phonemes:
        yield phonemes
