"""Speech → what the small transformer hears of it: 25 states per second that tell mouth shapes apart.

Log-mel spectra, 100 per second, pass a few convolutions that reach `AHEAD` spectra on and a little further back. The
weights are trained to tell the visemes from the five states around a frame, which is what the transformer hears.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from infinitetalk.audio import SAMPLE_RATE, STEP, audible, states_in
from infinitetalk.plan import REACH
from infinitetalk.small.config import SpeechConfig
from infinitetalk.weights import assemble, open_tensors

WEIGHTS = "speech.safetensors"
HOP, SPECTRUM = 160, 512
"""Samples between spectra; of one spectrum."""
PER_STATE = STEP // HOP
LOWEST, HIGHEST = 60.0, 7600.0
"""Hz."""
FLOOR, CENTRE, SPREAD = 1e-6, -6.0, 4.0
"""Power of what is silence; log powers are brought to about 0 ± 1 by fixed numbers, so that no sound depends on one far
away."""
BEHIND, AHEAD = 8, 4
"""Spectra around a state's own four that its convolution sees."""
VISEMES = 11


class LogMel(nn.Module):  # type: ignore[misc]
    """Samples → log-mel spectra; nothing in it is trained or stored."""

    window: Tensor
    filters: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(SPECTRUM), persistent=False)
        self.register_buffer("filters", mel_filters(mels), persistent=False)  # (257, mels)

    def forward(
        self,
        samples: Tensor,  # (B, M)
        states: int,
    ) -> Tensor:  # (B, mels, 4·states)
        """The spectra of so many states; what is missing at either end is silence."""
        count = states * PER_STATE
        around = (SPECTRUM - HOP) // 2
        missing = max(0, count * HOP + around - samples.shape[1])
        frames = functional.pad(samples, (around, missing)).unfold(1, SPECTRUM, HOP)[:, :count]  # (B, 4n, 512)
        power = torch.fft.rfft(frames * self.window).abs().square()  # (B, 4n, 257)
        return ((torch.log(power @ self.filters + FLOOR) - CENTRE) / SPREAD).transpose(1, 2)


class SpeechNetwork(nn.Module):  # type: ignore[misc]
    """Samples → states → visemes; the last step serves training and measuring alone."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.spectra = LogMel(config.mels)
        self.first = nn.Conv1d(config.mels, hidden, 5, padding=2)
        self.second = nn.Conv1d(hidden, hidden, 5, padding=2)
        self.fold = nn.Conv1d(hidden, 2 * hidden, PER_STATE + BEHIND + AHEAD, stride=PER_STATE)
        self.out = nn.Conv1d(2 * hidden, config.channels, 1)
        self.visemes = nn.Linear((2 * REACH + 1) * config.channels, VISEMES)

    def forward(
        self,
        samples: Tensor,  # (B, M) at 16 kHz
        states: int,
    ) -> Tensor:  # (B, n, C)
        """States, each of mean 0 and deviation 1 over its channels."""
        return self.states(self.spectra(samples, states))

    def states(
        self,
        spectra: Tensor,  # (B, mels, 4n)
    ) -> Tensor:  # (B, n, C)
        """States of spectra."""
        x = functional.gelu(self.first(spectra))
        x = functional.gelu(self.second(x) + x)
        x = functional.gelu(self.fold(functional.pad(x, (BEHIND, AHEAD))))  # (B, 2·hidden, n)
        x = self.out(x).transpose(1, 2)
        return functional.layer_norm(x, x.shape[-1:])

    def mouth(
        self,
        states: Tensor,  # (B, n, C)
    ) -> Tensor:  # (B, n, 11)
        """Visemes, by the five states around each frame; at the ends the nearest is heard again."""
        padded = functional.pad(states.transpose(1, 2), (REACH, REACH), mode="replicate")  # (B, C, n+4)
        return self.visemes(padded.unfold(2, 2 * REACH + 1, 1).transpose(1, 2).flatten(2))


class SpeechFeatures:
    """Hears speech in one pass; has the interface of `audio.AudioEncoder`, for `audio.AudioFeatures`."""

    def __init__(self, network: SpeechNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def read(cls, file: Path, config: SpeechConfig, *, device: torch.device | str = "cpu") -> SpeechFeatures:
        """The encoder of a file of weights.

        Raises:
            BadWeightsError: The file is absent, damaged, or of another configuration.
        """
        with torch.device("meta"):
            network = SpeechNetwork(config)
        assemble(network, open_tensors([file]), torch.float32, device)
        network.spectra = LogMel(config.mels).to(device)  # no file holds it
        return cls(network)

    def __call__(
        self,
        samples: NDArray[np.float32],  # (M,)
    ) -> Tensor:
        """States of speech at 16 kHz → (n, 1, C), float32, 25 per second: n = int(M / 16000 · 25).

        Raises:
            BadInputError: There are fewer samples than one state needs.
        """
        heard = audible(samples, "SpeechFeatures").to(self.network.out.weight.device)  # (M,)
        with torch.no_grad():
            return self.network(heard[None], states_in(len(samples)))[0, :, None]

    def visemes(
        self,
        samples: NDArray[np.float32],  # (M,)
    ) -> NDArray[np.float32]:
        """What a mouth does that says it, 25 per second: (n, 11).

        Raises:
            BadInputError: There are fewer samples than one state needs.
        """
        states = self(samples)[:, 0]
        with torch.no_grad():
            return np.asarray(self.network.mouth(states[None])[0].cpu().numpy(), np.float32)


def mel_filters(mels: int) -> Tensor:  # (257, mels)
    """Triangles over the bins of a spectrum, evenly spaced on the mel scale (2595·log10(1 + f/700))."""
    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    steps = np.linspace(mel(LOWEST), mel(HIGHEST), mels + 2)  # (mels+2,)
    edges = 700 * (10 ** (steps / 2595) - 1)  # (mels+2,) Hz
    bins = np.arange(SPECTRUM // 2 + 1)[:, None] * SAMPLE_RATE / SPECTRUM  # (257, 1) Hz
    up = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])  # (257, mels)
    down = (edges[2:] - bins) / (edges[2:] - edges[1:-1])  # (257, mels)
    return torch.from_numpy(np.clip(np.minimum(up, down), 0, None).astype(np.float32))
