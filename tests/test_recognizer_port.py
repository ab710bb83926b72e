"""One suite for every recognizer that can run here."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.engines import describe
from models.engines.faster_whisper import FasterWhisper
from models.engines.local_weights import weights_hash
from models.errors import InputError, SetupError
from models.ports import EngineHome, Recognition, Samples
from models.records import EngineRef
from models.weights import WeightStore
from models.wording import word_errors
from tasks.media import read_audio
from tests.embedded import EXAMPLES, engine

EPISODE = EXAMPLES / "harbor-lights-s01e02"
ENGINES = ("faster-whisper", "whisperx")

pytestmark = pytest.mark.models


@cache
def loaded(name: str) -> Any:
    if name == "whisperx" and not find_spec("whisperx"):
        pytest.skip("needs the environment of `make test-extras`")
    return engine("recognizer", name, "whisper-base")[0]


@cache
def speech() -> Samples:
    return read_audio(EPISODE.with_suffix(".mp4"), rate=16_000, channels=1)


@cache
def heard(name: str) -> Recognition:
    return loaded(name).recognize(speech(), None)


def truth() -> dict[str, Any]:
    return json.loads(EPISODE.with_suffix(".truth.json").read_text())


@pytest.mark.parametrize("name", ENGINES)
def test_text_and_language_are_right(name: str) -> None:
    said = " ".join(u["text"] for u in truth()["utterances"])
    assert word_errors(said, " ".join(s.text for s in heard(name).segments), "en").rate <= 0.08
    assert heard(name).language == "en"
    assert heard(name).language_probability > 0.5


@pytest.mark.parametrize("name", ENGINES)
def test_words_have_times_in_order(name: str) -> None:
    words = [word for segment in heard(name).segments for word in segment.words]
    assert all(0 <= w.start <= w.end <= len(speech()) / 16_000 for w in words)
    assert [w.start for w in words] == sorted(w.start for w in words)
    assert all(w.text == w.text.strip() != "" for w in words)
    assert all(0 <= w.probability <= 1 for w in words)
    assert len(words) == 25


@pytest.mark.parametrize("name", ENGINES)
def test_words_are_near_the_truth(name: str) -> None:
    words = [word for segment in heard(name).segments for word in segment.words]
    starts = [w["start_s"] for u in truth()["utterances"] for w in u["words"]]
    assert float(np.median([abs(w.start - t) for w, t in zip(words, starts, strict=True)])) < 0.12


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("seconds", [0, 0.01, 3])
def test_silence_has_no_words(name: str, seconds: float) -> None:
    silence = np.zeros(int(seconds * 16_000), np.float32)
    assert loaded(name).recognize(silence, "en").segments == ()
    assert loaded(name).recognize(silence, None).language_probability == 0


@pytest.mark.parametrize("name", ENGINES)
def test_same_sound_same_answer(name: str) -> None:
    part = speech()[:6 * 16_000]
    assert loaded(name).recognize(part, "en") == loaded(name).recognize(part, "en")


@pytest.mark.parametrize("name", ENGINES)
def test_language_is_the_one_heard_also_when_another_was_given(name: str) -> None:
    assert loaded(name).recognize(speech()[:6 * 16_000], "es").language == "en"


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("tag", ["tlh", "not a tag", ""])
def test_languages_it_does_not_know_are_errors(name: str, tag: str) -> None:
    with pytest.raises(InputError, match=r"BCP-47|does not know the language"):
        loaded(name).recognize(speech()[:16_000], tag)


def test_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="beam_size"):
        FasterWhisper.required_weights({"beams": 3})


def test_own_folder_stays_out_of_recipes() -> None:
    options = {"path": "/models/large", "sha256": "a" * 64}
    ref = describe("recognizer", "faster-whisper", options, lambda name: {})
    assert ref.options["sha256"] == "a" * 64
    assert "path" not in ref.options


def test_lock_hashes_enter_recipes(tmp_path: Path) -> None:
    ref = describe("recognizer", "faster-whisper", {}, WeightStore(tmp_path).hashes)
    assert ref.weights["whisper-base/model.bin"].startswith("d01c3014")


def test_folder_without_a_model_is_a_set_up_error(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"no model")
    home = EngineHome(weights=lambda name: tmp_path, connection={"path": str(tmp_path)})
    digest = weights_hash(tmp_path)
    with pytest.raises(SetupError, match=f'sha256 = "{digest}"'):
        FasterWhisper(EngineRef(name="faster-whisper"), home)
    with pytest.raises(SetupError, match="CTranslate2"):
        FasterWhisper(EngineRef(name="faster-whisper", options={"sha256": digest}), home)
