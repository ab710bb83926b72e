"""A reference picture → the 257 image tokens that the transformer attends to (CLIP ViT-H/14, last layer but one).

The published file is open-CLIP's xlm-roberta-large-vit-huge-14, of which the picture half is used; the network is
transformers' `CLIPVisionModel`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from infinitetalk.errors import BadInputError
from infinitetalk.published import Source, count, fill, on_meta, size

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, per channel, in [0, 1]."""
HEADS = 16
FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
NAMES = (("embeddings.class_embedding", "cls_embedding"), ("embeddings.position_embedding.weight", "pos_embedding"),
         ("embeddings.patch_embedding", "patch_embedding"), ("pre_layrnorm", "pre_norm"),
         ("post_layernorm", "post_norm"), ("encoder.layers", "transformer"), ("layer_norm", "norm"),
         ("self_attn.out_proj", "attn.proj"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.2"))
"""Part of a name in transformers → in the published file."""


class ClipVision:
    """Looks at one picture; works in the dtype and on the device of its network.

    Args:
        network: Its last layer is the one whose states are wanted: the published one without its own last.
    """

    def __init__(self, network: CLIPVisionModel) -> None:
        self.network: Any = network
        self._mean = torch.tensor(MEAN).view(3, 1, 1)
        self._std = torch.tensor(STD).view(3, 1, 1)

    @classmethod
    def from_published(cls, state: Mapping[str, Tensor], heads: int = HEADS, *, device: torch.device | str = "cpu",
                       dtype: torch.dtype | None = None, where: str = FILE) -> ClipVision:
        """The network of published tensors under their original names; widths follow from their shapes.

        Raises:
            BadWeightsError: A tensor is missing, unknown or of another shape.
        """
        from transformers import CLIPVisionConfig, CLIPVisionModel

        last = count(state, "visual.transformer", where) - 1
        patch = size(state, "visual.patch_embedding.weight", 2, where)
        side = isqrt(size(state, "visual.pos_embedding", 1, where) - 1)
        config = CLIPVisionConfig(
            hidden_size=size(state, "visual.pos_embedding", 2, where), num_attention_heads=heads,
            num_hidden_layers=last, intermediate_size=size(state, "visual.transformer.0.mlp.0.weight", 0, where),
            image_size=patch * side, patch_size=patch, hidden_act="gelu", layer_norm_eps=1e-5)
        network = on_meta(CLIPVisionModel, config)
        # Not stored, hence without memory so far.
        network.embeddings.position_ids = torch.arange(side * side + 1, device=device)[None]
        unused = rf"textual\..*|log_scale|visual\.head|visual\.transformer\.{last}\..*"
        fill(network, state, _source, where=where, ignored=unused, device=device, dtype=dtype)
        return cls(network)

    def __call__(
        self,
        image: Tensor,  # (3, H, W) in [-1, 1]
    ) -> Tensor:
        """States of all tokens, the class token first, after the last layer but one → (1, 257, clip_dim)."""
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
            raise BadInputError(f"a picture of shape {tuple(image.shape)}", where="ClipVision", hint="Give (3, H, W).")
        weight = self.network.pre_layrnorm.weight
        side = self.network.config.image_size
        x = image[None].to(weight.device, torch.float32)  # (1, 3, H, W)
        x = functional.interpolate(x, size=(side, side), mode="bicubic", align_corners=False)  # (1, 3, 224, 224)
        x = (x * 0.5 + 0.5 - self._mean.to(x.device)) / self._std.to(x.device)  # (1, 3, 224, 224)
        with torch.no_grad():
            return self.network(pixel_values=x.to(weight.dtype)).last_hidden_state  # (1, 257, clip_dim)


def _source(name: str) -> Source:
    """Where a tensor of transformers' network is published; query, key and value lie in one."""
    for ours, theirs in NAMES:
        name = name.replace(ours, theirs)
    found = re.fullmatch(r"(.*)self_attn\.([qkv])_proj(\..*)", name)
    if found:
        return Source(f"visual.{found[1]}attn.to_qkv{found[3]}", "qkv".index(found[2]), 3)
    return Source(f"visual.{name}")
