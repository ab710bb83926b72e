"""Separators: demucs on a tiny network of its own class with random weights, and the step around any of them."""

from __future__ import annotations

import json
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from models.engines import adapter, missing
from models.errors import EngineError, SetupError
from models.ports import EngineHome
from models.records import Artifact, EngineRef
from tasks import separate as module
from tasks.media import read_audio, write_flac
from tasks.separate import SeparateRequest, separate
from tasks.step import Work

RATE = 48_000
REF = EngineRef(name="demucs")


def noise(count: int, channels: int = 2, level: float = 0.1) -> NDArray[np.float32]:
    return (np.random.default_rng(3).standard_normal((count, channels)) * level).astype(np.float32)


# -- demucs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as the author publishes them, but a thousandth of the size and random."""
    if not find_spec("demucs_infer"):
        pytest.skip("needs the extra separation")
    import torch
    from demucs_infer.htdemucs import HTDemucs
    from safetensors.torch import save_file

    torch.manual_seed(0)
    segment = Fraction(1, 2)
    sizes = {"sources": ["drums", "bass", "other", "vocals"], "channels": 8, "depth": 4, "t_layers": 1, "t_heads": 2,
             "nfft": 1024, "bottom_channels": 8}
    network = HTDemucs(**sizes, segment=segment)
    kwargs = sizes | {"segment": {"_type": "fraction", "numerator": segment.numerator,
                                  "denominator": segment.denominator}}
    folder = tmp_path_factory.mktemp("htdemucs")
    save_file({name: value.half() if value.is_floating_point() else value
               for name, value in network.state_dict().items()}, folder / "955717e8.safetensors",
              metadata={"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(kwargs)})
    return folder


def demucs(folder: Path) -> Any:
    return adapter("separator", "demucs")(REF, EngineHome(weights=lambda name: folder, threads=1))


def test_demucs_finds_some_voices_and_always_the_same(tiny: Path) -> None:
    engine, sound = demucs(tiny), noise(50_000)
    voices = engine.voices(sound)
    assert voices.shape == sound.shape
    assert voices.dtype == np.float32
    assert np.isfinite(voices).all()
    assert voices.any()
    assert np.array_equal(voices, engine.voices(sound))
    assert np.allclose(engine.voices(sound * 0.1), voices * 0.1, atol=1e-4), "quiet sound is heard as well"


def test_demucs_finds_nothing_in_silence(tiny: Path) -> None:
    engine = demucs(tiny)
    assert not engine.voices(np.zeros((3000, 2), np.float32)).any()
    assert engine.voices(np.zeros((0, 2), np.float32)).shape == (0, 2)


@pytest.mark.parametrize("content", [b"", b"not safetensors"])
def test_other_weights_are_a_set_up_error(tmp_path: Path, content: bytes) -> None:
    if not find_spec("demucs_infer"):
        pytest.skip("needs the extra separation")
    (tmp_path / "955717e8.safetensors").write_bytes(content)
    with pytest.raises(SetupError, match="not the weights of a demucs"):
        demucs(tmp_path)


def test_it_says_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.engines.demucs.find_spec", lambda name: None)
    assert "infinidub[separation]" in missing("separator", "demucs", {})
    assert adapter("separator", "demucs").required_weights({}) == ("htdemucs",)


# -- the step ---------------------------------------------------------------------------------------------------------


class Takes:
    """Takes a part of everything for voices; another one at each call, as networks that see other surroundings do."""

    sample_rate = 44_100
    parts: ClassVar[list[float]] = [0.25, 0.5, 0.25, 0.5, 0.25, 0.5]

    def __init__(self) -> None:
        self.left = list(self.parts)

    def voices(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        return sound * np.float32(self.left.pop(0))


class Engines:
    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def get(self, port: str, ref: EngineRef) -> Any:
        return self.engine


def source(work: Work, sound: NDArray[np.float32]) -> Artifact:
    write_flac(work.scratch / "source.flac", sound)
    return work.store.put_file(work.scratch / "source.flac", "audio/flac")


def bed(work: Work, sound: NDArray[np.float32], engine: Any) -> NDArray[np.float32]:
    work.engines = Engines(engine)
    made = separate.function(work, SeparateRequest(audio=source(work, sound), separator=REF))
    return read_audio(work.store.path(made.bed), channels=None)


def hum(count: int) -> NDArray[np.float32]:
    """Far below where resampling begins to matter."""
    wave = 0.4 * np.sin(2 * np.pi * 200 * np.arange(count) / RATE)
    return np.column_stack([wave, wave]).astype(np.float32)


def test_what_is_voice_is_gone_and_pieces_do_not_show(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 40_000)
    monkeypatch.setattr(module, "AROUND", 4800)
    sound = hum(100_001)
    found = bed(work, sound, Takes())
    assert found.shape == sound.shape
    assert found[2000:39_000] == pytest.approx(sound[2000:39_000] * 0.75, abs=0.01)
    assert found[46_000:79_000] == pytest.approx(sound[46_000:79_000] * 0.5, abs=0.01)
    assert np.abs(np.diff(found, axis=0)).max() < 1.05 * np.abs(np.diff(sound, axis=0)).max()


@pytest.mark.parametrize(("given", "kept"), [(1, 2), (2, 2), (6, 6), (8, 8)])
def test_layouts_stay_and_the_effects_channel_with_them(work: Work, given: int, kept: int) -> None:
    sound = np.repeat(hum(20_000)[:, :1], given, axis=1)
    found = bed(work, sound, Takes())
    assert found.shape == (20_000, kept)
    middle = slice(2000, 18_000)
    shares = np.abs(found[middle]).max(axis=0) / 0.4
    wanted = {2: [0.75] * 2, 6: [0.75, 0.75, 0.5, 1, 0.75, 0.75], 8: [0.75, 0.75, 0.5, 1, 0.75, 0.75, 0.5, 0.5]}
    assert shares == pytest.approx(wanted[kept], abs=0.02)


@pytest.mark.parametrize("answer", [lambda sound: sound[:-1], lambda sound: sound * np.float32(np.nan)])
def test_nonsense_is_an_engine_error(work: Work, answer: Any) -> None:
    class Nonsense(Takes):
        def voices(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
            return answer(sound)

    with pytest.raises(EngineError, match="separator"):
        bed(work, hum(5000), Nonsense())
