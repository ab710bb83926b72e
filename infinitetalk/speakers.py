"""Who speaks where: label positions that bind each of two persons' audio to that person's pixels.

L-RoPE of MultiTalk (arXiv 2505.22647, section 3.3): video tokens that resemble person 1 in the first latent frame get
positions near the label of audio 1, those that resemble person 2 near the label of audio 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from infinitetalk.attention import attend

SPAN = 4.0
"""Width of a person's range of positions."""
STARTS = (0.0, 20.0)
"""Where the range of person 1 and of person 2 begins; the audio's own label is the middle of it."""
BACKGROUND = 12.0
"""Position of tokens that resemble neither."""


def reference_map(
    q: Tensor,  # (N, A, d) with positions
    k: Tensor,  # (N, A, d) with positions
    masks: Tensor,  # (3, S) bool
) -> Tensor:  # (3, N) float32
    """How much each token attends to person 1, person 2 and the background, as the first latent frame shows them.

    For every class the mean, over its tokens and the heads, of the attention that they would get if there were no other
    keys than the first latent frame's. A class without tokens gets 0 everywhere.
    """
    tokens, width = masks.shape[1], q.shape[-1]
    # The probabilities, tokens × S for every head, are never laid out: the sum over a class is attention whose values
    # are the masks themselves, filled up with zeros because fused kernels want values as wide as the keys, and laid out
    # for each head because some of them (cuDNN, those with TMA) do not take a stride of 0.
    values = torch.nn.functional.pad(masks.T.to(q.dtype), (0, width - len(masks)))  # (S, d)
    values = values[None, :, None].repeat(1, 1, q.shape[1], 1)  # (1, S, A, d)
    sums = attend(q[None], k[None, :tokens], values)[0, ..., : len(masks)]  # (N, A, 3)
    return sums.float().mean(1).T / masks.sum(1, keepdim=True).clamp_min(1)


def label_positions(
    attention: Tensor,  # (3, N)
) -> Tensor:  # (N,)
    """Position of every token on the line of labels, from its `reference_map`.

    The most attended class decides the range; within a person's range the position is the map, scaled to the smallest
    and the largest value of the chunk.
    """
    persons = attention[:2]  # (2, N)
    low, high = persons.amin(1, keepdim=True), persons.amax(1, keepdim=True)  # (2, 1)
    starts = persons.new_tensor(STARTS)[:, None]  # (2, 1)
    ranges = (persons - low) / (high - low + 1e-8) * SPAN + starts  # (2, N)
    choices = torch.cat([ranges, torch.full_like(ranges[:1], BACKGROUND)])  # (3, N)
    return choices.gather(0, attention.argmax(0, keepdim=True))[0]


def key_positions(tokens: int, device: torch.device) -> Tensor:  # (K,)
    """Labels of K audio tokens: the first half is person 1's, the second person 2's."""
    labels = torch.tensor(STARTS, device=device) + SPAN / 2  # (2,)
    return labels.repeat_interleave(tokens // 2)
