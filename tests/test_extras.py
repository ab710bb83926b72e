"""Engines whose libraries live in `.venv-extras`: run by `make test-extras`, skipped elsewhere. The network is shut."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.engines import EngineCache, describe
from models.engines.local_weights import weights_hash
from models.errors import InputError, SetupError
from models.ports import EngineHome, Samples
from models.weights import WeightStore
from models.wording import word_errors
from tasks.media import read_audio
from tests.embedded import EXAMPLES, engine, weights

pytest.importorskip("TTS", reason="needs the environment of `make test-extras`")
pytestmark = pytest.mark.extras

TEXT = "Good morning, Daniel."


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("a test wanted the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def loaded(port: str, name: str, store: WeightStore | None = None, **options: Any) -> Any:
    """An engine with its connection apart from its options, as settings give them."""
    from models.engines import adapter

    where = {key: value for key, value in options.items() if key in adapter(port, name).CONNECTION}
    home = EngineHome(weights=store.folder if store else lambda weight: Path("absent"), connection=where)
    ref = describe(port, name, options, store.hashes if store else lambda weight: {})
    return EngineCache(lambda _port, _name: home, store.hashes if store else lambda weight: {}).get(port, ref)


def speech() -> Samples:
    return read_audio(EXAMPLES / "harbor-lights-s01e02.mp4", rate=16_000, channels=1)


# -- whisperx ---------------------------------------------------------------------------------------------------------


def test_whisperx_transcribes_with_the_embedded_weights() -> None:
    recognizer, ref = engine("recognizer", "whisperx", "whisper-base")
    truth = json.loads((EXAMPLES / "harbor-lights-s01e02.truth.json").read_text())
    heard = recognizer.recognize(speech(), "en")
    said = " ".join(u["text"] for u in truth["utterances"])
    assert word_errors(said, " ".join(s.text for s in heard.segments), "en").rate <= 0.08
    assert ref.weights["whisper-base/model.bin"]


def small_aligner(folder: Path) -> Path:
    """A wav2vec 2.0 with seeded random weights, and NLTK's punkt_tab with nothing in it."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), unk_token="<unk>", pad_token="<pad>",
                                     word_delimiter_token="|")
    Wav2Vec2Processor(feature_extractor=Wav2Vec2FeatureExtractor(), tokenizer=tokenizer).save_pretrained(folder)
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                  intermediate_size=32, conv_dim=(16,) * 7, num_conv_pos_embeddings=16,
                                  num_conv_pos_embedding_groups=2, pad_token_id=0)).save_pretrained(folder)
    punkt = folder / "nltk" / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (punkt / name).write_text("")
    return folder


def test_whisperx_takes_word_times_from_an_aligner(tmp_path: Path) -> None:
    folder = small_aligner(tmp_path / "aligner")
    recognizer = loaded("recognizer", "whisperx", weights("whisper-base"), aligner="random",
                        aligner_path=str(folder), nltk_path=str(folder / "nltk"))
    heard = recognizer.recognize(speech()[:6 * 16_000], "en")
    words = [word for segment in heard.segments for word in segment.words]
    assert " ".join(w.text for w in words) == " ".join(s.text for s in heard.segments)
    assert [w.start for w in words] == sorted(w.start for w in words)
    assert all(0 <= w.start <= w.end <= 6.5 for w in words)


def test_whisperx_says_what_an_aligner_lacks(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="Wav2Vec2ForCTC"):
        loaded("recognizer", "whisperx", weights("whisper-base"), aligner="mine", aligner_path=str(tmp_path))


# -- pyannote ---------------------------------------------------------------------------------------------------------


def test_pyannote_turns_lie_within_the_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyannote.audio import Pipeline
    from pyannote.core import Annotation, Segment

    found = Annotation()
    for start, end, label in ((4.0, 6.0, "SPEAKER_00"), (0.5, 3.0, "SPEAKER_01"), (7.0, 8.0, "SPEAKER_01")):
        found[Segment(start, end)] = label
    asked: list[Any] = []

    def pipeline(sound: Any, **limits: int) -> Any:
        asked.append((tuple(sound["waveform"].shape), sound["sample_rate"], limits))
        return SimpleNamespace(exclusive_speaker_diarization=found)

    monkeypatch.setattr(Pipeline, "from_pretrained", lambda path: pipeline)
    (tmp_path / "embedding").mkdir()
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "embedding/pytorch_model.bin").write_bytes(b"weights")
    diarizer = loaded("diarizer", "pyannote", path=str(tmp_path), sha256=weights_hash(tmp_path),
                      max_speakers=3)
    turns = diarizer.diarize(np.zeros(160_000, np.float32), [(1.0, 5.0), (7.5, 9.0)])
    assert [(t.start, t.end, t.speaker) for t in turns] == [(1.0, 3.0, "A"), (4.0, 5.0, "B"), (7.5, 8.0, "A")]
    assert asked == [((1, 160_000), 16_000, {"max_speakers": 3})]
    assert diarizer.diarize(np.zeros(10, np.float32), []) == ()


def test_pyannote_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no pyannote pipeline"):
        loaded("diarizer", "pyannote", path=str(tmp_path))


# -- coqui ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_vits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VITS for English letters, with seeded random weights."""
    import torch
    from TTS.tts.configs.shared_configs import CharactersConfig
    from TTS.tts.configs.vits_config import VitsArgs, VitsConfig
    from TTS.tts.models.vits import Vits

    torch.manual_seed(0)
    sizes = VitsArgs(num_chars=60, hidden_channels=16, hidden_channels_ffn_text_encoder=32, num_heads_text_encoder=2,
                     num_layers_text_encoder=1, num_layers_posterior_encoder=1, num_layers_flow=1,
                     upsample_initial_channel_decoder=16, upsample_rates_decoder=[8, 8, 4],
                     upsample_kernel_sizes_decoder=[16, 16, 8], resblock_kernel_sizes_decoder=[3],
                     resblock_dilation_sizes_decoder=[[1, 3]], resblock_type_decoder="2", use_sdp=False,
                     init_discriminator=False)
    letters = CharactersConfig(characters_class="TTS.tts.models.vits.VitsCharacters", pad="_", eos="", bos="", blank="",
                               characters="abcdefghijklmnopqrstuvwxyz", punctuations="!'(),-.:;? ", phonemes="")
    config = VitsConfig(model_args=sizes, text_cleaner="basic_cleaners", use_phonemes=False, phoneme_language="en",
                        characters=letters)
    folder = tmp_path_factory.mktemp("vits")
    torch.save({"model": Vits(config).state_dict()}, folder / "model.pth")
    config.save_json(str(folder / "config.json"))
    return folder / "model.pth"


def coqui(path: Path, **options: Any) -> Any:
    digest = weights_hash(path, "config.json")
    return loaded("synthesizer", "coqui", path=str(path), sha256=digest, **options)


def test_coqui_speaks_from_local_weights(small_vits: Path) -> None:
    synthesizer = coqui(small_vits)
    voice, = synthesizer.voices("en-GB")
    samples = synthesizer.speak(TEXT, voice.id, "en-GB")
    assert samples.dtype == np.float32
    assert len(samples) > synthesizer.sample_rate // 10
    assert 1e-3 < np.abs(samples).max() <= 1
    assert np.array_equal(samples, synthesizer.speak(TEXT, voice.id, "en-GB"))
    assert synthesizer.voices("de") == ()


def test_coqui_names_the_voices_there_are(small_vits: Path) -> None:
    with pytest.raises(InputError, match="default"):
        coqui(small_vits).speak(TEXT, "nobody", "en")


# -- all of them together ---------------------------------------------------------------------------------------------


def test_diffusers_works_beside_them() -> None:
    import torch
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
                           latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    with torch.inference_mode():
        assert vae.encode(torch.zeros(1, 3, 1, 16, 16)).latent_dist.mean.shape[:3] == (1, 4, 1)


def test_engines_say_which_library_they_miss_nowhere_here() -> None:
    from models.engines import missing

    assert missing("recognizer", "whisperx", {}) == ""
    assert missing("synthesizer", "coqui", {}) == ""
    assert "path" not in describe("recognizer", "whisperx", {"path": "/x", "sha256": "a"}, lambda name: {}).options
