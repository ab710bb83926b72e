"""A prompt → the states of its tokens that the transformer attends to (umT5-XXL's encoder).

The network is transformers' `UMT5EncoderModel`, the tokenizer that of google/umt5-xxl. Only the tokens that there are
go in: the published implementation pads to 512, masks the rest and cuts it off again, which gives the same states.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.published import Source, count, fill, on_meta, size

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import UMT5EncoderModel

MOST_TOKENS = 512
"""Of a prompt, the closing one included: `TransformerConfig.text_len`."""
END = "</s>"
FURTHEST = 128
"""Tokens apart from which on relative positions are no longer told apart."""
FILE = "models_t5_umt5-xxl-enc-bf16.pth"
NEGATIVE_PROMPT = (
    "overexposed, washed-out or garish colours, blurry, out of focus, compression blocks, low quality, grey haze, "
    "drawing, cartoon look, subtitles, captions, watermark, logo, frozen picture, no movement, jitter, deformed face, "
    "smeared features, crooked teeth, badly drawn hands, fused or extra fingers, missing or extra limbs, "
    "broken anatomy, cluttered background, crowd in the background, walking backwards")
"""What a picture must not be, where the caller says nothing."""
NAMES = (("encoder.block", "blocks"), ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
         ("layer.0.SelfAttention", "attn"), ("layer.0.layer_norm", "norm1"), ("layer.1.layer_norm", "norm2"),
         ("layer.1.DenseReluDense.wi_0", "ffn.gate.0"), ("layer.1.DenseReluDense.wi_1", "ffn.fc1"),
         ("layer.1.DenseReluDense.wo", "ffn.fc2"), ("encoder.final_layer_norm", "norm"),
         ("encoder.embed_tokens", "token_embedding"), ("shared", "token_embedding"))
"""Part of a name in transformers → in the published file."""


class TextEncoder:
    """Reads prompts; works in the dtype and on the device of its network."""

    def __init__(self, network: UMT5EncoderModel, tokenizer: Tokenizer) -> None:
        self.network: Any = network
        self._tokenizer = tokenizer

    @classmethod
    def from_published(cls, state: Mapping[str, Tensor], tokenizer: Path | str, *, device: torch.device | str = "cpu",
                       dtype: torch.dtype | None = None, where: str = FILE) -> TextEncoder:
        """The network of published tensors under their original names; widths follow from their shapes.

        Args:
            state: Published tensors.
            tokenizer: The file `tokenizer.json`.
            device: Where the network is to be.
            dtype: What it computes in; what was published if None.
            where: What errors call the file of tensors.

        Raises:
            BadWeightsError: A tensor is missing, unknown or of another shape; the tokenizer cannot be read.
        """
        from transformers import UMT5Config, UMT5EncoderModel

        words = _tokenizer(Path(tokenizer))
        vocabulary, width = (size(state, "token_embedding.weight", axis, where) for axis in (0, 1))
        buckets, heads = (size(state, "blocks.0.pos_embedding.embedding.weight", axis, where) for axis in (0, 1))
        config = UMT5Config(
            vocab_size=vocabulary, d_model=width, num_heads=heads,
            d_kv=size(state, "blocks.0.attn.q.weight", 0, where) // heads,
            d_ff=size(state, "blocks.0.ffn.fc1.weight", 0, where), num_layers=count(state, "blocks", where),
            relative_attention_num_buckets=buckets, relative_attention_max_distance=FURTHEST,
            feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6)
        network = on_meta(UMT5EncoderModel, config)
        fill(network, state, _source, where=where, device=device, dtype=dtype)
        network.encoder.set_input_embeddings(network.shared)
        return cls(network, words)

    def __call__(self, prompt: str) -> Tensor:
        """States of a prompt's tokens, the closing one included → (k, text_dim).

        Raises:
            BadInputError: The prompt has more than 512 tokens.
        """
        ids = self._tokenizer.encode(clean(prompt)).ids
        if len(ids) > MOST_TOKENS:
            raise BadInputError(f"it has {len(ids)} tokens, {MOST_TOKENS} can be read", where="prompt",
                                hint=f"Shorten it by about {1 - MOST_TOKENS / len(ids):.0%}.")
        return self.encode(torch.tensor(ids))

    def encode(
        self,
        ids: Tensor,  # (k,)
    ) -> Tensor:
        """States of tokens → (k, text_dim)."""
        with torch.no_grad():
            return self.network(input_ids=ids[None].to(self.network.shared.weight.device)).last_hidden_state[0]


def clean(prompt: str) -> str:
    """The prompt as the network was trained to read: broken encodings mended, HTML's signs, single spaces."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def _tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a file, which neither cuts nor pads and closes every text."""
    from tokenizers import Tokenizer

    if not file.is_file():
        raise BadWeightsError("the tokenizer is missing", where=str(file), hint="Fetch google/umt5-xxl/tokenizer.json.")
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadWeightsError(f"the tokenizer cannot be read ({error})", where=str(file),
                              hint="Fetch google/umt5-xxl/tokenizer.json again.") from error
    words = Tokenizer.from_file(str(file))
    words.no_truncation()
    words.no_padding()
    if words.encode("a").tokens[-1:] != [END]:
        raise BadWeightsError(f"this tokenizer does not close texts with {END}", where=str(file),
                              hint="Fetch google/umt5-xxl/tokenizer.json.")
    return words


def _source(name: str) -> Source:
    """Where a tensor of transformers' network is published."""
    for ours, theirs in NAMES:
        name = name.replace(ours, theirs)
    return Source(name)
