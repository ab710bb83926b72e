import ctypes
import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk.errors import BadInputError
from infinitetalk.world import speech as speech_module
from infinitetalk.world.camera import KINDS, draw_camera
from infinitetalk.world.motion import act, wander
from infinitetalk.world.scene import CHANNELS, FACE_UNITS, FRAMINGS, Phoneme
from infinitetalk.world.sentences import LANGUAGES, sentence
from infinitetalk.world.speech import ACCENTS, FEMALE, MALE, RATE, Speech, Voice, converse, draw_voice, say
from infinitetalk.world.visemes import LEAD, SHAPES, frame_times, visemes


def _speaks() -> bool:
    try:
        ctypes.CDLL(speech_module.LIBRARY)
    except OSError:
        return False
    return True


needs_speech = pytest.mark.skipif(not _speaks(), reason="libespeak-ng is not installed")
JAW = CHANNELS.index("jawOpen")
QUIET = Speech(np.zeros(4 * RATE, np.float32), (), ())


def talk(seed, seconds=6.0, people=1):
    rng = np.random.default_rng(seed)
    return converse(rng, [draw_voice(rng, "train", index % 2) for index in range(people)], seconds)


def level(audio, rate):
    """Root mean square around each frame."""
    hop = RATE // rate
    return np.sqrt(np.mean(audio[: len(audio) // hop * hop].reshape(-1, hop) ** 2, axis=1))


@pytest.mark.parametrize("rate", [24, 25, 30])
def test_a_silent_mouth_is_shut_and_a_word_opens_it(rate):
    times = frame_times(rate * 4, rate)
    assert not visemes((), (), times).any()
    spoken = visemes((Phoneme("m", 1.0, 1.1), Phoneme("a", 1.1, 1.4)), (1.25,), times)
    assert spoken.shape == (rate * 4, len(CHANNELS))
    assert spoken[times < 0.8].max() < 0.01
    assert spoken[times > 1.7].max() < 0.01
    assert 0.5 < spoken[:, JAW].max() <= 1.0


@pytest.mark.parametrize("rate", [24, 25, 30])
@pytest.mark.parametrize("sound", ["p", "b", "m"])
def test_the_lips_close_for_a_bilabial_however_short_it_is_and_lead_its_sound(sound, rate):
    for start in np.arange(1.0, 1.05, 0.003):
        said = (Phoneme("aː", 0.5, start), Phoneme(sound, start, start + 0.045), Phoneme("aː", start + 0.045, 2.0))
        times = frame_times(3 * rate, rate)
        mouth = visemes(said, (), times)
        near = (times > start - LEAD - 0.02) & (times < start + 0.045 - LEAD + 0.02)
        assert mouth[near, JAW].min() < 0.05
        assert mouth[near, CHANNELS.index("mouthPress")].max() > 0.4
        assert mouth[(times > 0.7) & (times < 0.9), JAW].min() > 0.4


def test_a_stressed_vowel_is_wider_and_a_faint_speaker_narrower():
    said, times = (Phoneme("a", 1.0, 1.4),), frame_times(50, 25)
    usual, stressed = visemes(said, (), times), visemes(said, (1.2,), times)
    assert stressed[:, JAW].max() > 1.1 * usual[:, JAW].max()
    assert visemes(said, (), times, strength=0.5)[:, JAW].max() < 0.6 * usual[:, JAW].max()


def test_one_seed_moves_alike_at_every_rate():
    said = Speech(QUIET.audio, (Phoneme("a", 1.0, 1.4), Phoneme("m", 1.4, 1.5), Phoneme("o", 1.5, 1.9)), (1.2, 1.7))
    fine = act(np.random.default_rng(4), said, 4 * 300, 300, "half")
    for rate in (24, 25, 30):
        rough = act(np.random.default_rng(4), said, 4 * rate, rate, "half")
        for name in ("units", "head", "arms"):
            exact = np.stack([np.interp(frame_times(4 * rate, rate), frame_times(1200, 300), column)
                              for column in getattr(fine.motion, name).T], axis=1)
            assert np.abs(getattr(rough.motion, name) - exact).max() < 0.02


def test_stress_moves_head_brows_and_arms():
    rng = np.random.default_rng
    said = replace(QUIET, phonemes=(Phoneme("a", 1.0, 3.0),), stresses=(1.5, 2.0, 2.5))
    times = frame_times(100, 25)
    stressed = (times > 1.4) & (times < 2.6)
    brow = FACE_UNITS.index("browInnerUp")
    changes = []
    for seed in range(6):
        calm, lively = (act(rng(seed), one, 100, 25, "half") for one in (QUIET, said))
        assert (lively.motion.head - calm.motion.head)[stressed, 0].mean() > 0.02
        assert (lively.motion.units - calm.motion.units)[stressed, brow].mean() >= 0
        assert not (calm.beats > 0).any()
        changes.append(np.abs(lively.motion.arms - calm.motion.arms).max())
    assert max(changes) > 0.1


def test_what_moves_stays_within_what_a_body_can_do():
    for seed in range(8):
        motion = act(np.random.default_rng(seed), QUIET, 500, 25, "half").motion
        assert motion.units.shape == (500, 52)
        assert motion.units.min() >= 0
        assert motion.units.max() <= 1
        assert np.abs(motion.head).max() < 0.7
        assert motion.arms.min() >= 0
        assert motion.arms.max() < 2.1
        assert motion.units[:, FACE_UNITS.index("eyeBlinkLeft")].max() > 0.8
        assert not motion.units[:, [i for i, name in enumerate(FACE_UNITS) if name.startswith("eyeLook")]].any()


def test_noise_is_smooth_and_of_its_amount():
    noise = wander(np.random.default_rng(0), frame_times(5000, 25), 1.0, 0.1, 1)[:, 0]
    assert 0.05 < noise.std() < 0.12
    assert np.abs(np.diff(noise)).max() < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_cameras_move_as_their_kind_says_and_stay_near(kind, framing):
    path = draw_camera(np.random.default_rng(1), 100, 25, framing, kind=kind).path
    moved = np.ptp(path, axis=0)
    expected = {"static": set(), "pan": {3}, "zoom": {2}, "orbit": {0}, "shake": {3, 4}}[kind]
    assert {int(i) for i in np.flatnonzero(moved > 1e-4)} == expected
    assert 0.7 * FRAMINGS[framing][0] < path[:, 2].min()
    assert path[:, 2].max() < 1.4 * FRAMINGS[framing][0]
    assert draw_camera(np.random.default_rng(1), 100, 25, framing, people=2).path[:, 2].min() > 2.2


def test_sentences_are_of_their_language_and_drawn_by_seed():
    for language in LANGUAGES:
        said = [sentence(np.random.default_rng(seed), language) for seed in range(40)]
        assert len(set(said)) > 30
        assert not any(word.strip("¿¡.,!?") in LANGUAGES[language] for text in said for word in text.split())
    assert sentence(np.random.default_rng(3), "fr") == sentence(np.random.default_rng(3), "fr")


@given(st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_voices_of_the_two_splits_have_nobody_in_common(seed, feminine):
    assert not set(MALE["train"] + FEMALE["train"]) & set(MALE["test"] + FEMALE["test"])
    for split in ("train", "test"):
        voice = draw_voice(np.random.default_rng(seed), split, feminine)
        assert voice.variant in (FEMALE if feminine > 0.5 else MALE)[split]
        assert voice.accent in ACCENTS[voice.language if voice.language in ACCENTS else voice.accent]


# -- with the library -------------------------------------------------------------------------------------------------


@needs_speech
def test_phonemes_cover_the_sound_and_pauses_are_digital_silence():
    for seed in range(6):
        said = talk(seed)[0]
        assert said.audio.shape == (6 * RATE,)
        assert said.audio.dtype == np.float32
        spoken = np.zeros(len(said.audio), bool)
        for (_, start, end), (_, following, _) in zip(said.phonemes, [*said.phonemes[1:], ("", 6.0, 6.0)], strict=True):
            assert 0 <= start < end <= 6.0
            assert end <= following + 1e-9
            spoken[int(start * RATE) - 480: int(end * RATE) + 1600] = True
        assert not said.audio[~spoken].any()
        assert (~spoken).any()
        assert 3 < len(said.stresses) < len(said.phonemes)
        assert np.array_equal(said.audio * 32768, np.round(said.audio * 32768))
        assert {letter for sound, *_ in said.phonemes for letter in sound} & set(SHAPES)


@needs_speech
def test_the_mouth_follows_the_sound():
    lags, matches = [], []
    for seed in range(8):
        said = talk(seed, 8.0)[0]
        jaw = visemes(said.phonemes, said.stresses, frame_times(800, 100))[:, JAW]
        loud = np.convolve(level(said.audio, 100), np.ones(5) / 5, "same")
        by_lag = [np.corrcoef(np.roll(loud, lag)[30:-30], jaw[30:-30])[0, 1] for lag in range(-15, 16)]
        lags.append(int(np.argmax(by_lag)) - 15)
        matches.append(max(by_lag))
    assert -5 <= np.median(lags) <= 1          # hundredths of a second: lips lead
    assert np.mean(matches) > 0.45


@needs_speech
@pytest.mark.parametrize("language", list(LANGUAGES))
def test_every_language_has_sounds_that_are_known_and_bilabials_that_close(language):
    rng = np.random.default_rng(7)
    said = converse(rng, [draw_voice(rng, "test", 1.0, language)], 10.0)[0]
    letters = [letter for sound, *_ in said.phonemes for letter in sound if letter.isalpha()]
    assert np.mean([letter in SHAPES for letter in letters if letter != "ː"]) > 0.97
    times = frame_times(250, 25)
    jaw = visemes(said.phonemes, said.stresses, times)[:, JAW]
    closed = [jaw[np.argmin(np.abs(times - ((start + end) / 2 - LEAD)))] for sound, start, end in said.phonemes
              if sound in ("p", "b", "m") and end - start > 0.03]
    assert closed
    assert max(closed) < 0.08


@needs_speech
def test_a_sentence_is_the_same_whatever_was_said_before_and_in_any_process():
    text, voice = "the small boat moves below the bridge, maybe.", Voice("en-us", "m3")
    first, _, again = say([(text, voice), ("un petit bateau", Voice("fr", "f2")), (text, voice)])
    assert np.array_equal(first.audio, again.audio)
    assert first.phonemes == again.phonemes
    assert first.stresses == again.stresses
    code = ("import hashlib; from infinitetalk.world.speech import say, Voice; "
            f"print(hashlib.sha256(say([({text!r}, Voice('en-us', 'm3'))])[0].audio.tobytes()).hexdigest())")
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(first.audio.tobytes()).hexdigest()


@needs_speech
def test_two_people_take_turns():
    one, two = talk(3, 20.0, people=2)
    assert one.phonemes
    assert two.phonemes
    assert not ((np.abs(one.audio) > 0) & (np.abs(two.audio) > 0)).any()


@needs_speech
def test_every_voice_is_there():
    everybody = sorted({*MALE["train"], *MALE["test"], *FEMALE["train"], *FEMALE["test"]})
    said = say([("papa", Voice("es", variant)) for variant in everybody])
    assert {one.phonemes[0].sound for one in said} == {"p"}
    assert len({one.audio.tobytes() for one in said}) == len(everybody)


@needs_speech
def test_a_voice_that_is_missing_is_named():
    with pytest.raises(BadInputError, match=r"has no voice en-us\+nobody"):
        say([("hello", Voice("en-us", "nobody"))])
    with pytest.raises(BadInputError, match="nothing can be spoken"):
        say([("...", Voice("en-us", "m1"))])


def test_a_missing_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(speech_module, "LIBRARY", "libnothing.so.9")
    with pytest.raises(BadInputError, match="apt-get install espeak-ng"):
        say([("hello", Voice("en-us", "m1"))])
