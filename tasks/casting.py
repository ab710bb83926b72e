"""Casting: one voice per speaker, as the cast says, else by the pitch of the source voice. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from models.engines import ENGINES, adapter
from models.ports import Voice
from models.records import Speaker

MALE_BELOW_HZ = 165.0
"""Median pitch of speech: men's voices lie below, women's and children's above."""


def cast_voices(heard: Sequence[str], speakers: Iterable[Speaker], voices: Sequence[Voice],
                cast: Mapping[str, str]) -> dict[str, str]:
    """Choose voices, another one for each speaker while there are enough.

    Args:
        heard: Speaker id of every line, in the order of the episode.
        speakers: What is known of them.
        voices: Those of the language, best first.
        cast: Speaker id or name → voice id. It may be one of another language, or a blend: the engine refuses what
            it does not know.

    Returns:
        Speaker id → voice id. It depends on who speaks, never on what is said.
    """
    known = {speaker.id: speaker for speaker in speakers}
    order = [*known, *dict.fromkeys(name for name in heard if name not in known)]
    given = {name: cast.get(name) or cast.get(known[name].name, "") if name in known else cast.get(name, "")
             for name in order}
    chosen = {name: voice for name, voice in given.items() if voice}
    for name in order:
        if name not in chosen:
            gender = gender_of(known[name].pitch_hz if name in known else None)
            chosen[name] = default_voice(gender, voices, list(chosen.values()))
    return chosen


def gender_of(pitch_hz: float | None) -> str:
    """'female' or 'male' by the median pitch of a voice; '' where it is not known."""
    return "" if pitch_hz is None else "male" if pitch_hz < MALE_BELOW_HZ else "female"


def default_voice(gender: str, voices: Sequence[Voice], taken: Sequence[str]) -> str:
    """The best voice of a gender, least used so far; of any where the gender is not known, or has none.

    Args:
        gender: 'female', 'male' or ''.
        voices: At least one, best first.
        taken: Voices of the others, each as often as it is used.
    """
    fitting = [voice.id for voice in voices if not gender or voice.gender == gender] or [voice.id for voice in voices]
    return min(fitting, key=taken.count)


def other_engines(language: str, name: str) -> str:
    """Synthesizers that speak a language, for a hint."""
    spoken = [other for other in ENGINES["synthesizer"] if other != name
              and getattr(adapter("synthesizer", other), "speaks", lambda _: False)(language)]
    return ", ".join(spoken) or "none of the others"
