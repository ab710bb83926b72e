"""Speech → what the transformer hears of it: states of wav2vec 2.0 on the video's frame clock.

Samples at 16 kHz → convolutions → resampled to 25 per second → the states of all transformer layers (n, L, C). The
network is transformers' `Wav2Vec2Model` with the weights of TencentGameMate/chinese-wav2vec2-base; resampling between
convolutions and layers is the way of the published implementation (MeiGen-AI/InfiniteTalk at 0107cd96).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.plan import held_windows
from infinitetalk.published import HINT, Source, fill, on_meta
from infinitetalk.weights import open_tensors

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model

SAMPLE_RATE = 16_000
STATE_RATE = 25
"""States per second: the frame rate that the transformer was trained at."""
STEP = SAMPLE_RATE // STATE_RATE
"""Samples per state."""
LUFS = -23.0
"""Loudness that the network is used to (EBU R 128)."""
LOUDEST = 100.0
"""Beyond ± this many LUFS a measurement is none: silence measures -inf."""
SHORTEST = 0.4
"""Seconds that a loudness can be told of: one block of ITU-R BS.1770."""

WINDOW, OVERLAP, FADE = 60 * STATE_RATE, 10 * STATE_RATE, 2 * STATE_RATE
"""States computed at once; those that two neighbouring windows share; those in the middle of them over which one window
gives way to the next."""
HOP, LEAD = WINDOW - OVERLAP, (OVERLAP - FADE) // 2
"""States between the starts of neighbouring windows; those at a window's start that serve as its context alone."""
KEPT = 2
"""Windows kept in memory: frames are asked for in order, and no state needs more."""

PRE_TRAINING = r"(quantizer|project_q|project_hid|dropout_features|lm_head)\..*|(wav2vec2\.)?masked_spec_embed"
"""Tensors that only training needs."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def normalise_loudness(samples: NDArray[np.float32], lufs: float = LUFS) -> NDArray[np.float32]:
    """Speech (M,) at 16 kHz, scaled to an integrated loudness (ITU-R BS.1770).

    Silence, and what is too short to have a loudness (0.4 s), is returned as it is.
    """
    import pyloudnorm

    if len(samples) < SHORTEST * SAMPLE_RATE:
        return samples
    with np.errstate(divide="ignore"):
        loudness = float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(samples))
    if not isfinite(loudness) or abs(loudness) > LOUDEST:
        return samples
    return (samples * 10 ** ((lufs - loudness) / 20)).astype(np.float32)


class _AtStateRate(nn.Module):  # type: ignore[misc]
    """The network's convolutions, their output resampled from about 50 per second to 25."""

    def __init__(self, convolutions: nn.Module) -> None:
        super().__init__()
        self.convolutions = convolutions

    def forward(
        self,
        samples: Tensor,  # (1, M)
    ) -> Tensor:
        features = self.convolutions(samples)  # (1, C, about M/320)
        return functional.interpolate(features, size=states_in(samples.shape[1]), mode="linear", align_corners=True)


def states_in(samples: int) -> int:
    """How many states so many samples have; in this order of operations, as published."""
    return int(samples / SAMPLE_RATE * STATE_RATE)


def samples_of(states: int) -> int:
    """The fewest samples that have so many states: one more than expected where that order rounds down (29 states)."""
    return states * STEP + (states_in(states * STEP) < states)


def audible(
    samples: NDArray[np.float32],  # (M,)
    where: str,
) -> Tensor:
    """Samples that an encoder can hear → (M,) float32.

    Raises:
        BadInputError: There are fewer than one state needs; `where` is the encoder.
    """
    if samples.ndim != 1 or states_in(len(samples)) < 1:
        raise BadInputError(f"audio of shape {samples.shape} is too short to be heard", where=where,
                            hint=f"Give at least {STEP} samples, mono.")
    return torch.from_numpy(np.ascontiguousarray(samples, np.float32))


class AudioEncoder:
    """Hears speech in one pass; works in float32 on the device of its network.

    Args:
        network: wav2vec 2.0.
        normalise: Whether samples are brought to zero mean and unit variance first (the published file says no).
    """

    def __init__(self, network: Wav2Vec2Model, *, normalise: bool = False) -> None:
        self.network: Any = network
        self._normalise = normalise
        self.network.feature_extractor = _AtStateRate(self.network.feature_extractor)

    @classmethod
    def from_folder(cls, folder: Path, *, device: torch.device | str = "cpu") -> AudioEncoder:
        """The network of a folder in the layout of Hugging Face.

        Args:
            folder: Holds `config.json`, `preprocessor_config.json` and `model.safetensors` or `pytorch_model.bin`.
            device: Where the network is to be.

        Raises:
            BadWeightsError: A file is missing or unreadable, or a tensor is missing, unknown or of another shape.
        """
        config, preprocessor = _read_json(folder / "config.json"), _read_json(folder / "preprocessor_config.json")
        state, file = _read_tensors(folder)
        return cls.from_published(state, config, normalise=bool(preprocessor.get("do_normalize", True)), device=device,
                                  where=str(file))

    @classmethod
    def from_published(cls, state: Mapping[str, Tensor], config: Mapping[str, Any], *, normalise: bool = False,
                       device: torch.device | str = "cpu", where: str = WEIGHTS[0]) -> AudioEncoder:
        """The network of published tensors, named as for pre-training or alone.

        Raises:
            BadWeightsError: A tensor is missing, unknown or of another shape.
        """
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        sizes = Wav2Vec2Config(**{**config, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0})
        network = on_meta(Wav2Vec2Model, sizes)
        fill(network, state, _names(state), where=where, ignored=PRE_TRAINING, device=device, dtype=torch.float32)
        return cls(network, normalise=normalise)

    def __call__(
        self,
        samples: NDArray[np.float32],  # (M,)
    ) -> Tensor:
        """States of speech at 16 kHz → (n, L, C), float32, 25 per second: n = int(M / 16000 · 25).

        Raises:
            BadInputError: There are fewer samples than one state needs.
        """
        heard = audible(samples, "AudioEncoder").to(self.network.encoder.layer_norm.weight.device)[None]  # (1, M)
        if self._normalise:
            heard = (heard - heard.mean()) / torch.sqrt(heard.var(unbiased=False) + 1e-7)  # (1, M)
        with torch.no_grad():
            layers = self.network(heard, output_hidden_states=True).hidden_states[1:]  # L of (1, n, C)
        return torch.cat(layers).transpose(0, 1)  # (n, L, C)


class AudioFeatures:
    """States of one speaker on the frame clock of a video, computed as they are asked for.

    Audio of up to a minute is heard in one pass, as published. Longer audio is heard in windows of a minute; where two
    overlap, the later one fades in. Which windows a frame is made of depends on its index alone.

    Args:
        encoder: What hears.
        samples: (M,) at 16 kHz; silence is heard after its end.
        rate: Frames per second of the video.
        frames: Of the video.

    Raises:
        BadInputError: There are no frames, or the rate is none.
    """

    def __init__(self, encoder: AudioEncoder, samples: NDArray[np.float32], rate: Fraction, frames: int) -> None:
        if frames < 1 or rate <= 0:
            raise BadInputError(f"{frames} frames at {rate} per second", where="AudioFeatures",
                                hint="Give at least one frame, and the video's rate.")
        self._encoder, self._frames = encoder, frames
        self._clock = STATE_RATE / rate
        needed = ceil((frames - 1) * self._clock) + 1
        self._samples = _padded(samples, samples_of(needed))
        self._states = states_in(len(self._samples))
        self._windows: OrderedDict[int, Tensor] = OrderedDict()  # the latest used last

    def at(
        self,
        indices: Tensor,  # (m,) integers in [0, frames)
    ) -> Tensor:
        """States at the times of frames, interpolated between neighbours where they fall between → (m, L, C)."""
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < self._frames:
            raise IndexError(f"frames {int(indices.min())} to {int(indices.max())} of {self._frames}")
        ticks = indices.cpu() * self._clock.numerator  # (m,) in units of 1/denominator of a state, hence exact
        before = ticks.div(self._clock.denominator, rounding_mode="floor")  # (m,)
        after = (before + 1).clamp(max=self._states - 1)  # (m,)
        wanted, places = torch.cat([before, after]).unique(return_inverse=True)  # (u,), (2m,)
        low, high = self._heard(wanted)[places].chunk(2)  # (m, L, C) each
        share = ((ticks % self._clock.denominator).double() / self._clock.denominator).to(low)  # (m,)
        return low + (high - low) * share[:, None, None]  # (m, L, C)

    def _heard(
        self,
        at: Tensor,  # (u,) states
    ) -> Tensor:
        """States by index → (u, L, C)."""
        newest = (at - LEAD).div(HOP, rounding_mode="floor").clamp(0, self._last)  # (u,) windows that have set in
        share = (at - LEAD - newest * HOP + 1) / (FADE + 1)  # (u,) of them, in the sum with those before
        share = share.clamp(max=1).where(newest > 0, 1.0)  # (u,)
        return torch.cat([self._faded(window, at[newest == window], share[newest == window])
                          for window in newest.unique().tolist()])  # `at` is sorted, hence the windows too

    def _faded(self, window: int, at: Tensor, share: Tensor) -> Tensor:
        states = self._window(window)[at - window * HOP]  # (u, L, C)
        fading = share < 1
        if fading.any():
            weight = share[fading].to(states)[:, None, None]
            earlier = self._window(window - 1)[at[fading] - (window - 1) * HOP]
            states[fading] = states[fading] * weight + earlier * (1 - weight)
        return states

    def _window(self, window: int) -> Tensor:
        """States of a window, from memory if they are among the latest used."""
        if window not in self._windows:
            states = self._encoder(self._samples if not self._last else self._cut(window))
            while len(self._windows) >= KEPT:
                self._windows.popitem(last=False)
            self._windows[window] = states
        self._windows.move_to_end(window)
        return self._windows[window]

    def _cut(self, window: int) -> NDArray[np.float32]:
        start = window * HOP
        count = samples_of(min(WINDOW, self._states - start))
        return _padded(self._samples[start * STEP:][:count], count)

    @property
    def _last(self) -> int:
        """The last window; 0 if the first holds all."""
        return ceil(max(0, self._states - WINDOW) / HOP)


def windows(
    embeddings: Callable[[Tensor], Tensor],
    start: int,
    frames: int,
    last: int,
) -> Tensor:
    """What is heard around each of some frames: two states before, its own, two after.

    Args:
        embeddings: States of frames by their indices, (m,) → (m, L, C), e.g. `AudioFeatures.at`.
        start: First frame.
        frames: How many frames.
        last: Last frame that there is; beyond it and before 0 the nearest is heard again.

    Returns:
        (F, 5, L, C)
    """
    wanted, places = held_windows(start, frames, last + 1).unique(return_inverse=True)  # (u,), (F, 5)
    return embeddings(wanted)[places]  # (F, 5, L, C)


def _padded(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Samples, with digital silence after them if they are fewer than `count`."""
    return np.pad(samples, (0, max(0, count - len(samples))))


def _names(state: Mapping[str, Tensor]) -> Callable[[str], Source]:
    """Where tensors of transformers' network are published, in this file's way of naming."""
    prefix = "wav2vec2." if any(name.startswith("wav2vec2.") for name in state) else ""
    kernel = f"{prefix}encoder.pos_conv_embed.conv."
    older = f"{kernel}weight_g" in state or f"{kernel}weight_v" in state
    known = {f"{kernel}parametrizations.weight.original0": f"{kernel}weight_g",
             f"{kernel}parametrizations.weight.original1": f"{kernel}weight_v"} if older else {}
    return lambda name: Source(known.get(prefix + name, prefix + name))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadWeightsError(f"it cannot be read ({error})", where=str(file), hint=HINT) from error
    if not isinstance(told, dict):
        raise BadWeightsError("it is no JSON object", where=str(file), hint=HINT)
    return told


def _read_tensors(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """The tensors of the folder, and the file that held them."""
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])
    return {name: stored.read() for name, stored in open_tensors([file]).items()}, file
