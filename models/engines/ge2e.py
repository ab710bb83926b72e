"""Diarizer: the GE2E speaker encoder (Wan et al., 2018; Resemblyzer's weights) and agglomerative clustering.

Good enough to tell apart the few clear voices of a scene on a CPU; crowded or telephone-like sound needs `pyannote`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.engines.options import Adapter, read_options
from models.errors import SetupError
from models.ports import EngineHome, Samples, Turn
from models.records import EngineRef, Record

Vectors = NDArray[np.float32]  # (K, 256), of length 1
Spans = list[tuple[float, float]]

RATE = 16_000
WINDOW, HOP, MELS = 400, 160, 40
"""25 ms, 10 ms; mel bands."""
PARTIAL, PARTIAL_HOP = 160, 80
"""Mel frames that the encoder was trained on (1.6 s), and between two of its looks at a longer stretch."""
BATCH = 64
GROUP = 250
"""Stretches whose bands are held at once: ten minutes of talk."""
LOUDNESS_DBFS = -24.0
"""Level to which every stretch is brought: the bands are not logarithmic, so loudness would pass for voice."""

LONGEST = 2.4
"""Seconds of speech that get one label."""
CLEAR = 0.8
"""Seconds from which a stretch helps to decide how many voices there are."""
MARGIN = 0.05
"""Similarity by which a shorter stretch must prefer a voice to be given another one than its neighbour."""
NEAR = 1.0
"""Seconds within which a stretch is a neighbour."""
MOST_CLUSTERED = 4000
"""Stretches that are clustered (memory grows with the square); the rest, the shortest, join the nearest voice."""


class Ge2eOptions(Record):
    """What may be set."""

    model: str = "ge2e"
    threshold: float = Field(default=0.64, gt=0, lt=1)
    """Mean cosine similarity from which stretches of speech are taken for one voice."""
    max_speakers: int = Field(default=0, ge=0)
    """No more voices than this; 0: as many as there seem to be."""


class Ge2e(Adapter):
    """Labels stretches of speech by voice."""

    OPTIONS: ClassVar[type[Record]] = Ge2eOptions
    SAME_VOICE: ClassVar[float] = 0.88
    """Measured on 17 voices in stretches of 4 to 10 s: of one voice 0.90 to 0.96, of two 0.62 (at most 0.87)."""

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        """Load the encoder.

        Raises:
            SetupError: The weights are absent or are not GE2E's.
        """
        import torch

        self._options = read_options(Ge2eOptions, ref.name, ref.options)
        path = home.weights(self._options.model) / "pretrained.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            self._lstm = torch.nn.LSTM(MELS, 256, num_layers=3, batch_first=True)
            self._lstm.load_state_dict({k.removeprefix("lstm."): v for k, v in state.items() if k.startswith("lstm.")})
            self._linear = torch.nn.Linear(256, 256)
            self._linear.load_state_dict({"weight": state["linear.weight"], "bias": state["linear.bias"]})
        except (KeyError, RuntimeError, OSError) as error:
            raise SetupError(f"not the weights of a GE2E encoder: {error}", where=str(path)) from error
        self._bands = torch.from_numpy(mel_bands())

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The encoder."""
        return (read_options(Ge2eOptions, "ge2e", options).model,)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """What is not installed."""
        return "" if find_spec("torch") else "torch is missing; pip install torch==2.13.0"

    def diarize(self, samples: Samples, speech: Sequence[tuple[float, float]]) -> tuple[Turn, ...]:
        """Label 16 kHz samples; a turn never reaches over a span of `speech`."""
        spans = [part for span in speech for part in _parts(span, len(samples) / RATE)]
        if not spans:
            return ()
        vectors = self.embed([samples[int(a * RATE):int(b * RATE)] for a, b in spans])
        labels = assign(spans, vectors, self._options.threshold, self._options.max_speakers)
        names: dict[int, str] = {}
        return tuple(Turn(start, end, names.setdefault(label, speaker_name(len(names))))
                     for (start, end), label in zip(spans, labels, strict=True))

    def embed(self, stretches: Sequence[Samples]) -> Vectors:
        """The voices in K stretches of 16 kHz sound as vectors of length 1 (K, 256)."""
        groups = [self._embed(stretches[i:i + GROUP]) for i in range(0, len(stretches), GROUP)]
        return np.concatenate(groups) if groups else np.zeros((0, 256), np.float32)

    def _embed(self, stretches: Sequence[Samples]) -> Vectors:
        import torch

        torch.set_num_threads(1)  # its steps are too small to share: beside other work four took 60 times as long
        with torch.inference_mode():
            looks = [(k, look) for k, samples in enumerate(stretches) for look in self._looks(samples)]
            looks.sort(key=lambda item: len(item[1]))
            seen = torch.cat([self._encode([look for _, look in looks[i:i + BATCH]])
                              for i in range(0, len(looks), BATCH)])  # (L, 256)
            sums = torch.zeros(len(stretches), seen.shape[1]).index_add_(0, torch.tensor([k for k, _ in looks]), seen)
            return np.asarray(torch.nn.functional.normalize(sums, dim=1).numpy(), np.float32)

    def _looks(self, samples: Samples) -> list[Any]:
        """Pieces of at most 1.6 s of a stretch's mel bands, overlapping by half: (F, 40) each."""
        import torch

        spectrum = torch.stft(torch.from_numpy(_levelled(samples)), WINDOW, HOP, window=torch.hann_window(WINDOW),
                              center=True, pad_mode="constant", return_complex=True).abs() ** 2  # (201, F)
        mel = (self._bands @ spectrum).T
        last = max(0, len(mel) - PARTIAL)
        return [mel[start:start + PARTIAL] for start in (*range(0, last, PARTIAL_HOP), last)]

    def _encode(self, looks: Sequence[Any]) -> Any:
        """(F, 40) each → (B, 256), of length 1."""
        import torch

        _, (hidden, _) = self._lstm(torch.nn.utils.rnn.pack_sequence(list(looks), enforce_sorted=False))  # (3, B, 256)
        return torch.nn.functional.normalize(torch.relu(self._linear(hidden[-1])), dim=1)


def speaker_name(index: int) -> str:
    """A … Z, then AA, AB …"""
    first, last = divmod(index, 26)
    return (speaker_name(first - 1) if first else "") + chr(ord("A") + last)


@cache
def mel_bands() -> NDArray[np.float32]:
    """Slaney's mel bands with equal areas, 0 to 8 kHz → (40, 201)."""
    edges = _from_mel(np.linspace(0, _to_mel(RATE / 2), MELS + 2))
    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])[:, None]
    return np.asarray(triangles, np.float32)


def _to_mel(hertz: float) -> float:
    """Slaney's scale at and above 1 kHz, where it is logarithmic."""
    return 15 + float(np.log(hertz / 1000) / (np.log(6.4) / 27))


def _from_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    hertz: NDArray[np.float64] = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    return hertz


def _levelled(samples: Samples) -> Samples:
    level = 10 * np.log10(float(np.mean(samples.astype(np.float64) ** 2)) + 1e-12)
    return np.asarray(samples * 10 ** ((LOUDNESS_DBFS - level) / 20), np.float32)


def _parts(span: tuple[float, float], length: float) -> Iterator[tuple[float, float]]:
    """Equal parts of at most LONGEST seconds."""
    start, end = max(0.0, span[0]), min(span[1], length)
    if end - start < WINDOW / RATE:
        return
    count = int(np.ceil((end - start) / LONGEST))
    edges = np.linspace(start, end, count + 1)
    yield from ((float(a), float(b)) for a, b in pairwise(edges))


# -- clustering -------------------------------------------------------------------------------------------------------


def assign(spans: Spans, vectors: Vectors, threshold: float, most: int = 0) -> list[int]:
    """A voice number for each span: long ones are clustered, short ones join a voice, or their neighbour's.

    Args:
        spans: (start, end) in seconds, in order.
        vectors: One embedding a span.
        threshold: Mean similarity from which two groups are one voice.
        most: Voices there may be at most; 0: any number.
    """
    lengths = np.array([end - start for start, end in spans])
    clear = np.flatnonzero(lengths >= min(CLEAR, float(lengths.max())))
    clear = np.sort(clear[np.argsort(-lengths[clear], kind="stable")][:MOST_CLUSTERED])
    groups = _clusters(vectors[clear], threshold, most)
    voices = np.stack([_mean(vectors[clear[groups == g]], lengths[clear[groups == g]]) for g in np.unique(groups)])
    likeness = vectors @ voices.T  # (K, voices)
    labels = [int(k) for k in np.argmax(likeness, axis=1)]
    for position, g in zip(clear, groups, strict=True):
        labels[position] = int(g)
    for i in sorted(set(range(len(spans))) - set(clear.tolist())):
        neighbour = _neighbour(spans, i)
        if neighbour is not None and likeness[i].max() - likeness[i, labels[neighbour]] < MARGIN:
            labels[i] = labels[neighbour]
    return labels


def _clusters(vectors: Vectors, threshold: float, most: int) -> NDArray[np.int64]:
    """Average-linkage clusters, numbered from 0 → (K,)."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(vectors) == 1:
        return np.zeros(1, np.int64)
    tree = linkage(vectors, method="average", metric="cosine")
    groups = fcluster(tree, 1 - threshold, criterion="distance")
    if most and groups.max() > most:
        groups = fcluster(tree, most, criterion="maxclust")
    return np.asarray(groups, np.int64) - 1


def _mean(vectors: Vectors, weights: NDArray[np.float64]) -> NDArray[np.float32]:
    mean = weights @ vectors
    return np.asarray(mean / max(1e-9, float(np.linalg.norm(mean))), np.float32)


def _neighbour(spans: Spans, i: int) -> int | None:
    """The span nearest in time, the one before when both are as near; None when neither is within NEAR seconds."""
    near = [(spans[i][0] - spans[i - 1][1], i - 1)] if i else []
    near += [(spans[i + 1][0] - spans[i][1], i + 1)] if i + 1 < len(spans) else []
    gap, position = min(near, default=(NEAR + 1, 0))
    return position if gap <= NEAR else None
