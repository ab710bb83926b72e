"""One suite for every synthesizer that can run here, and what each of them does by itself."""

from __future__ import annotations

import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engines import describe
from models.engines.coqui import Coqui
from models.engines.espeak import Espeak, espeak_name
from models.engines.kokoro import LANGUAGES, TOKENS, Kokoro, phonemize, split_phonemes
from models.engines.local_weights import weights_hash
from models.errors import EngineError, InputError, SetupError
from models.onset import audible_span
from models.ports import EngineHome
from models.records import EngineRef
from models.weights import WeightStore
from models.wording import word_errors
from tests.embedded import engine

ENGINES = ("espeak", pytest.param("kokoro", marks=pytest.mark.models), pytest.param("coqui", marks=pytest.mark.extras))
needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng")


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> Coqui:
    """A voice with random weights."""
    if not find_spec("TTS"):
        pytest.skip("needs the environment of `make test-extras`")
    import torch
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.configs.vits_config import VitsConfig
    from TTS.tts.models.vits import Vits

    file = tmp_path_factory.mktemp("vits") / "model.pth"
    letters = CharactersConfig(
        characters_class="TTS.tts.models.vits.VitsCharacters", pad="_", eos="", bos="", blank="<BLNK>",
        characters="abcdefghijklmnopqrstuvwxyz", punctuations="!'(),-.:;? ", phonemes=None)
    config = VitsConfig(use_phonemes=False, text_cleaner="basic_cleaners", characters=letters)
    torch.manual_seed(0)
    torch.save({"model": Vits.init_from_config(config).state_dict()}, file)
    config.save_json(str(file.parent / "config.json"))
    ref = EngineRef(name="coqui", options={"language": "es", "sha256": weights_hash(file, "config.json")})
    return Coqui(ref, EngineHome(weights=lambda name: file.parent, connection={"path": str(file)}))


@cache
def loaded(name: str) -> Any:
    if not shutil.which("espeak-ng"):
        pytest.skip("needs espeak-ng")
    return engine("synthesizer", name, *(["kokoro"] if name == "kokoro" else []))[0]


@pytest.fixture(params=ENGINES)
def voice(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("vits") if request.param == "coqui" else loaded(request.param)


# -- every synthesizer ------------------------------------------------------------------------------------------------


def test_a_line_is_heard_and_always_the_same(voice):
    first = voice.voices("es")[0].id
    samples = voice.speak("hola clara", first, "es")
    assert samples.ndim == 1
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1
    start, end = audible_span(samples, voice.sample_rate)
    assert 0.3 < (end - start) / voice.sample_rate < 3
    assert np.array_equal(samples, voice.speak("hola clara", first, "es"))


def test_voices_are_those_of_the_language(voice):
    ids = [each.id for each in voice.voices("es-419")]
    assert len(set(ids)) == len(ids) > 0
    assert {each.gender for each in voice.voices("es")} <= {"female", "male", ""}
    assert voice.voices("xx") == ()


@pytest.mark.parametrize(("name", "language"), [("nobody", "es"), ("nobody", "xx")])
def test_unknown_voices_are_errors(voice, name, language):
    with pytest.raises(InputError, match="nobody"):
        voice.speak("hola", name, language)
    if language == "es":
        with pytest.raises(InputError, match=voice.voices("es")[0].id.replace("+", r"\+")):
            voice.speak("hola", name, language)


@pytest.mark.parametrize("text", ["", "…", "—!"])
def test_nothing_to_say_is_an_error(voice, text):
    with pytest.raises(EngineError):
        voice.speak(text, voice.voices("es")[0].id, "es")


# -- espeak -----------------------------------------------------------------------------------------------------------


@needs_espeak
@pytest.mark.parametrize(("tag", "name"), [
    ("es", "es"), ("es-419", "es-419"), ("es-MX", "es"), ("fr-CA", "fr-fr"), ("pt-BR", "pt-br"), ("pt-PT", "pt"),
    ("en", "en-us"), ("en-GB", "en-gb"), ("zh-Hans", "cmn"), ("de-AT", "de"), ("no", "nb"), ("xx", ""), ("tlh", ""),
])
def test_espeak_takes_the_nearest_region(tag, name):
    assert espeak_name(tag) == name


@needs_espeak
def test_espeak_speed_and_genders():
    espeak = loaded("espeak")
    slow, fast = (len(espeak.speak("Vamos a casa ahora mismo.", "m3", "es", speed)) for speed in (1.0, 1.25))
    assert 1.1 < slow / fast < 1.4
    assert [each.gender for each in espeak.voices("de")[:2]] == ["female", "male"]
    assert len(espeak.speak("-v en <speak> $(ls)", "f2", "es")) > 0


@needs_espeak
@pytest.mark.parametrize("language", ["fr", "fr-CA", "en-GB", "en", "es", "yue"])
def test_every_espeak_voice_sounds_like_itself(language):
    espeak = loaded("espeak")
    heard = {espeak.speak("Taxi!", voice.id, language).tobytes() for voice in espeak.voices(language)}
    assert len(heard) == len(espeak.voices(language)) == 8


def test_espeak_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "apt-get install espeak-ng" in Espeak.missing({})
    assert "espeak-ng" in Kokoro.missing({})


# -- kokoro -----------------------------------------------------------------------------------------------------------


def test_kokoro_vocabulary():
    assert len(TOKENS) == 115 - 1
    assert {TOKENS[c] for c in ";$ aɪᵻ" if c in TOKENS} == {1, 16, 43, 102, 177}


@needs_espeak
@pytest.mark.parametrize(("letter", "text", "phonemes"), [
    ("e", "¿Qué tal, Clara?", "kˈe tˈal, klˈaɾa?"),
    ("e", "Son 3 barcos (viejos).", "sˈon tɾˈes βˈaɾkos (bjˈexos)."),
    ("e", "Son 3,5 o 1.000.", "sˈon tɾˈes koma θˈinko o mˈil."),
    ("f", "Bonjour, j’habite ici !", "bɔ̃ʒˈuʁ, ʒabˈit isˈi !"),
    ("i", "Oggi, città.", "ˈɔʤːɪ, ʧitːˈa."),
    ("a", "I say now: the church.", "I sˈA nˈW: ðə ʧˈɜɹʧ."),
    ("b", "Go home.", "ɡˌQ hˈQm."),
    ("e", "«Sí» – dijo…", "“sˈi” dˈixo…"),
    ("f", "New York", "njˈuː jˈɔːk"),
    ("e", "🎬 … ", "…"),
])
def test_kokoro_phonemes(letter, text, phonemes):
    assert phonemize(text, letter).replace("—", "").replace("  ", " ") == phonemes
    assert set(phonemize(text, letter)) <= TOKENS.keys()


@settings(deadline=None)
@given(st.text(alphabet="ab ˈ,.!—…", max_size=60), st.integers(1, 20))
def test_long_texts_are_cut_into_parts_that_fit(phonemes, longest):
    parts = list(split_phonemes(phonemes, longest))
    assert all(0 < len(part) <= longest for part in parts if part) or not parts
    assert "".join(parts).replace(" ", "") == phonemes.replace(" ", "")


def test_long_texts_are_cut_after_sentences_first():
    assert list(split_phonemes("aaa. bbb, ccc. ddd eee", 16)) == ["aaa. bbb, ccc.", "ddd eee"]
    assert list(split_phonemes("aaa bbb, ccc ddd", 12)) == ["aaa bbb,", "ccc ddd"]
    assert list(split_phonemes("aaa bbb ccc", 8)) == ["aaa bbb", "ccc"]
    assert list(split_phonemes("aaaaaaaaaa", 4)) == ["aaaa", "aaaa", "aa"]


@pytest.mark.models
def test_kokoro_has_a_man_and_a_woman_in_every_language():
    kokoro = loaded("kokoro")
    for tag, _ in LANGUAGES.values():
        assert {each.gender for each in kokoro.voices(tag)} == {"female", "male"}
    assert kokoro.voices("en-GB")[0].id == "bf_emma"
    assert kokoro.voices("pt")[0].id == "pf_dora"
    assert kokoro.voices("fr")[0].language == kokoro.voices("fr")[1].language == "fr"


@pytest.mark.models
def test_kokoro_can_be_faster():
    slow, fast = (len(loaded("kokoro").speak("Vamos a casa.", "ef_dora", "es", speed)) for speed in (1.0, 1.3))
    assert slow > 1.1 * fast


@pytest.mark.models
def test_a_blended_voice_is_understood():
    """French has no man but those."""
    from scipy.signal import resample_poly

    text, kokoro = "J'ouvre la porte chaque nuit.", loaded("kokoro")
    recognizer = engine("recognizer", "faster-whisper", "whisper-base")[0]
    samples = resample_poly(kokoro.speak(text, "im_nicola+ff_siwis", "fr"), 2, 3).astype(np.float32)
    heard = " ".join(segment.text for segment in recognizer.recognize(samples, "fr").segments)
    assert word_errors(text, heard, "fr").rate <= 0.15


@pytest.mark.parametrize(("voice", "own"), [
    ("ef_dora", ["ef_dora"]), ("im_nicola+ff_siwis", ["im_nicola", "ff_siwis"])])
def test_kokoros_voices_depend_on_the_model_and_their_own_files(tmp_path, voice, own):
    ref = describe("synthesizer", "kokoro", {}, WeightStore(tmp_path).hashes)
    found = Kokoro(ref, EngineHome(weights=lambda name: tmp_path)).weights_of(voice)
    model = {name for name in ref.weights if "/voices/" not in name}
    assert model
    assert found == model | {f"kokoro/voices/{name}.bin" for name in own}


def test_kokoro_without_weights_says_how_to_get_them():
    def absent(name: str) -> Path:
        raise SetupError(f"{name} is missing", hint=f"infinidub models pull {name}")

    with pytest.raises(SetupError, match="models pull kokoro"):
        Kokoro(EngineRef(name="kokoro"), EngineHome(weights=absent))


# -- coqui ------------------------------------------------------------------------------------------------------------


class FakeModel:
    """`TTS.api.TTS` of a model with two languages and speakers, as far as it is used."""

    is_multi_lingual, languages, speakers = True, ["en", "zh-cn"], ["Ana", "Bob"]

    def __init__(self, xtts: bool) -> None:
        config = type("Config", (), {"model": "xtts" if xtts else "vits"})
        self.synthesizer = type("Synthesizer", (), {"output_sample_rate": 24_000, "tts_config": config})
        self.asked = dict[str, Any]()

    def tts(self, **asked: Any) -> list[float]:
        self.asked = asked
        return [0.0, 0.5, -2.0]


@pytest.mark.parametrize("xtts", [True, False])
def test_coqui_asks_in_the_models_own_names(tmp_path, xtts):
    pytest.importorskip("torch")
    (tmp_path / "model.pth").write_bytes(b"x")
    digest = weights_hash(tmp_path)
    home = EngineHome(weights=lambda name: tmp_path, connection={"path": str(tmp_path)})
    coqui = Coqui(EngineRef(name="coqui", options={"sha256": digest}), home)
    model = FakeModel(xtts)
    coqui.__dict__["_model"] = model
    assert coqui.speak("hello", "Bob", "zh-Hans", 1.1).tolist() == [0, 0.5, -1]
    wanted = {"text": "hello", "speaker": "Bob", "language": "zh-cn"}
    assert model.asked == (wanted | {"speed": 1.1} if xtts else wanted)
    with pytest.raises(InputError, match="does not speak"):
        coqui.speak("hallo", "Bob", "de")


def test_coqui_weights_are_known_by_their_hash(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"x")
    options = {"path": str(tmp_path), "sha256": weights_hash(tmp_path), "language": "es"}
    ref = describe("synthesizer", "coqui", options, lambda name: {})
    assert "path" not in ref.options
    with pytest.raises(SetupError, match=options["sha256"]):
        Coqui(EngineRef(name="coqui"), EngineHome(weights=lambda name: tmp_path, connection=options))
