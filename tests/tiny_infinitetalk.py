"""The engine's networks with tiny random weights, in memory or as files in the public layout under the original names.

Both come from the same tables of names and shapes, so a folder written here loads into the networks made here.
"""

from __future__ import annotations

import json
import math
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from infinitetalk.config import TransformerConfig

if TYPE_CHECKING:
    from infinitetalk.audio import AudioEncoder
    from infinitetalk.text import TextEncoder
    from infinitetalk.transformer import Transformer
    from infinitetalk.vae import WanCodec
    from infinitetalk.vision import ClipVision

Shapes = dict[str, tuple[int, ...]]

TINY = TransformerConfig(dim=32, ffn_dim=64, freq_dim=32, num_heads=2, num_layers=3, text_dim=16, clip_dim=16,
                         audio_layers=3, audio_channels=16, audio_hidden=16, audio_dim=16, audio_tokens=4)
CLIP_HEADS, CLIP_LAYERS = 2, 3
WAV2VEC: dict[str, Any] = {
    "model_type": "wav2vec2", "architectures": ["Wav2Vec2ForPreTraining"], "hidden_size": TINY.audio_channels,
    "num_hidden_layers": TINY.audio_layers, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [8] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_bias": False,
    "feat_extract_norm": "group", "do_stable_layer_norm": False, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 7, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
    "feat_extract_activation": "gelu"}
PREPROCESSOR = {"do_normalize": False, "feature_size": 1, "padding_side": "right", "padding_value": 0.0,
                "return_attention_mask": False, "sampling_rate": 16000}
WAN, OVERLAY = "Wan2.1-I2V-14B-480P", "infinitetalk.safetensors"
LETTERS = ascii_lowercase + digits
VOCABULARY = ["<pad>", "</s>", "<unk>", *LETTERS, *punctuation, *map("".join, product(LETTERS, LETTERS))]


@dataclass(frozen=True)
class Tiny:
    """All networks of the engine."""

    transformer: Transformer
    codec: WanCodec
    vision: ClipVision
    text: TextEncoder
    audio: AudioEncoder


def tiny_networks(seed: int = 0) -> Tiny:
    """Networks of seeded random weights in float32 on the CPU; the same as those of `write_public_layout`."""
    from infinitetalk.audio import AudioEncoder
    from infinitetalk.text import TextEncoder
    from infinitetalk.vae import WanCodec
    from infinitetalk.vision import ClipVision

    with tempfile.TemporaryDirectory() as folder:
        write_audio(Path(folder), seed)
        audio = AudioEncoder.from_folder(Path(folder))
        text = TextEncoder.from_published(weights(text_shapes(), seed), write_tokenizer(Path(folder)))
    return Tiny(tiny_transformer(seed), WanCodec.published(weights(codec_shapes(), seed)),
                ClipVision.from_published(weights(vision_shapes(), seed), heads=CLIP_HEADS), text, audio)


def tiny_transformer(seed: int = 0, config: TransformerConfig = TINY, attention: str = "sdpa") -> Transformer:
    """The transformer alone."""
    from infinitetalk.transformer import Transformer

    network = Transformer(config, attention=attention)
    network.load_state_dict(weights(base_shapes(config) | overlay_shapes(config), seed))
    return network.eval().requires_grad_(requires_grad=False)


def write_public_layout(folder: Path, seed: int = 0, *, shards: int = 3, dtype: torch.dtype = torch.float32,
                        layout: str = "original", config: TransformerConfig = TINY) -> Path:
    """Write all networks as the public weights are laid out.

    Args:
        folder: Gets `Wan2.1-I2V-14B-480P`, `InfiniteTalk` and `chinese-wav2vec2-base`.
        seed: Of the weights; `multi` differs from `single`.
        shards: Files that the base is cut into; 1 writes no index.
        dtype: Of the base.
        layout: Names of the base's tensors: "original" or "diffusers".
        config: Sizes of the transformer.
    """
    wan = folder / WAN
    wan.mkdir(parents=True)
    _write_base(wan, {name: value.to(dtype) for name, value in weights(base_shapes(config), seed).items()},
                shards, layout, config)
    torch.save(weights(text_shapes(), seed), wan / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(weights(vision_shapes() | {"textual.token_embedding.weight": (5, 4), "log_scale": ()}, seed),
               wan / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    torch.save(weights(codec_shapes(), seed), wan / "Wan2.1_VAE.pth")
    write_tokenizer(wan / "google" / "umt5-xxl")
    for variant, own in (("single", seed), ("multi", seed + 1)):
        (folder / "InfiniteTalk" / variant).mkdir(parents=True)
        save_file(weights(overlay_shapes(config), own), folder / "InfiniteTalk" / variant / OVERLAY)
    write_audio(folder / "chinese-wav2vec2-base", seed)
    return folder


def _write_base(wan: Path, state: Mapping[str, Tensor], shards: int, layout: str, config: TransformerConfig) -> None:
    told = {"model_type": "i2v", "dim": config.dim, "eps": config.eps, "ffn_dim": config.ffn_dim,
            "freq_dim": config.freq_dim, "in_dim": config.in_dim, "num_heads": config.num_heads,
            "num_layers": config.num_layers, "out_dim": config.out_dim, "text_len": config.text_len,
            "clip_heads": CLIP_HEADS}
    if layout == "diffusers":
        from infinitetalk.weights import original_to_diffusers

        (wan := wan / "transformer").mkdir()
        state = {original_to_diffusers(name): value for name, value in state.items()}
        told = {"_class_name": "WanTransformer3DModel", "num_attention_heads": config.num_heads,
                "attention_head_dim": config.head_dim, "in_channels": config.in_dim, "out_channels": config.out_dim,
                "ffn_dim": config.ffn_dim, "freq_dim": config.freq_dim, "num_layers": config.num_layers,
                "eps": config.eps, "clip_heads": CLIP_HEADS}
    (wan / "config.json").write_text(json.dumps(told), encoding="utf-8")
    where = {name: f"diffusion_pytorch_model-{index * shards // len(state) + 1:05d}-of-{shards:05d}.safetensors"
             if shards > 1 else "diffusion_pytorch_model.safetensors" for index, name in enumerate(state)}
    for file in sorted(set(where.values())):
        save_file({name: value for name, value in state.items() if where[name] == file}, wan / file)
    if shards > 1:
        (wan / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def write_audio(folder: Path, seed: int = 0) -> None:
    """The speech encoder's folder, with the prefix and the extras of a pre-training file."""
    folder.mkdir(parents=True, exist_ok=True)
    extras = {"quantizer.codevectors": (1, 4, 4), "project_q.weight": (4, 4), "project_hid.weight": (4, 4)}
    save_file(weights({f"wav2vec2.{name}": shape for name, shape in audio_shapes().items()} | extras, seed),
              folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(WAV2VEC), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR), encoding="utf-8")


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of letter pairs, so that every word counts; it ends with </s> as umT5's does."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[a-z0-9]{1,2}|."), "isolated")])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def weights(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Values that depend on seed and name alone, sized so that signals neither die nor explode."""
    return {name: _value(name, shape, seed) for name, shape in shapes.items()}


def _value(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    # one generator per name: adding a tensor leaves the others as they were; torch looks at 32 bits of its seed only
    values = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode())))
    kind = name.rpartition(".")[2]
    if kind == "gamma" or (kind == "weight" and len(shape) == 1) or kind == "weight_g":
        return 1 + 0.1 * values
    if kind == "bias":
        return 0.1 * values
    if kind in {"weight", "weight_v"} and "embedding.weight" not in name:
        return values / math.sqrt(math.prod(shape[1:]))
    return values if "token_embedding" in name else 0.3 * values


def base_shapes(c: TransformerConfig) -> Shapes:
    """Tensors of the Wan base."""
    shapes: Shapes = {"patch_embedding.weight": (c.dim, c.in_dim, 1, 2, 2), "patch_embedding.bias": (c.dim,)}
    shapes |= _linear("text_embedding.0", c.text_dim, c.dim) | _linear("text_embedding.2", c.dim, c.dim)
    shapes |= _linear("time_embedding.0", c.freq_dim, c.dim) | _linear("time_embedding.2", c.dim, c.dim)
    shapes |= _linear("time_projection.1", c.dim, 6 * c.dim)
    shapes |= _norm("img_emb.proj.0", c.clip_dim) | _linear("img_emb.proj.1", c.clip_dim, c.clip_dim)
    shapes |= _linear("img_emb.proj.3", c.clip_dim, c.dim) | _norm("img_emb.proj.4", c.dim)
    for layer in range(c.num_layers):
        shapes |= _block(f"blocks.{layer}", c)
    return shapes | {"head.modulation": (1, 2, c.dim)} | _linear("head.head", c.dim, 4 * c.out_dim)


def _block(at: str, c: TransformerConfig) -> Shapes:
    shapes: Shapes = {f"{at}.modulation": (1, 6, c.dim)} | _norm(f"{at}.norm3", c.dim)
    for attention, parts, norms in (("self_attn", "q k v o", "norm_q norm_k"),
                                    ("cross_attn", "q k v o k_img v_img", "norm_q norm_k norm_k_img")):
        for part in parts.split():
            shapes |= _linear(f"{at}.{attention}.{part}", c.dim, c.dim)
        shapes |= {f"{at}.{attention}.{norm}.weight": (c.dim,) for norm in norms.split()}
    return shapes | _linear(f"{at}.ffn.0", c.dim, c.ffn_dim) | _linear(f"{at}.ffn.2", c.ffn_dim, c.dim)


def overlay_shapes(c: TransformerConfig) -> Shapes:
    """Tensors that InfiniteTalk adds."""
    frame = c.audio_layers * c.audio_channels
    shapes = _linear("audio_proj.proj1", c.audio_window * frame, c.audio_hidden)
    shapes |= _linear("audio_proj.proj1_vf", (c.audio_window + 3) * frame, c.audio_hidden)
    shapes |= _linear("audio_proj.proj2", c.audio_hidden, c.audio_hidden)
    shapes |= _linear("audio_proj.proj3", c.audio_hidden, c.audio_tokens * c.audio_dim)
    shapes |= _norm("audio_proj.norm", c.audio_dim)
    for at in (f"blocks.{layer}" for layer in range(c.num_layers)):
        shapes |= _linear(f"{at}.audio_cross_attn.q_linear", c.dim, c.dim) | _norm(f"{at}.norm_x", c.dim)
        shapes |= _linear(f"{at}.audio_cross_attn.kv_linear", c.audio_dim, 2 * c.dim)
        shapes |= _linear(f"{at}.audio_cross_attn.proj", c.dim, c.dim)
    return shapes


def codec_shapes(dim: int = 4, z: int = 16) -> Shapes:
    """Tensors of the Wan VAE."""
    widths = [dim, dim, 2 * dim, 4 * dim, 4 * dim]
    shapes = _conv("encoder.conv1", 3, dim, 3) | _conv("decoder.conv1", z, 4 * dim, 3)
    shapes |= _conv("conv1", 2 * z, 2 * z, 1) | _conv("conv2", z, z, 1)
    at = 0
    for level, (before, width) in enumerate(pairwise(widths)):
        shapes |= _residual(f"encoder.downsamples.{at}", before, width)
        shapes |= _residual(f"encoder.downsamples.{at + 1}", width, width)
        if level < 3:
            shapes |= _resample(f"encoder.downsamples.{at + 2}", width, width, width if level else 0)
        at += 3
    for level, (before, width) in enumerate(((4, 4), (2, 4), (2, 2), (1, 1))):
        for part, into in enumerate((before, width, width)):
            shapes |= _residual(f"decoder.upsamples.{4 * level + part}", into * dim, width * dim)
        if level < 3:
            shapes |= _resample(f"decoder.upsamples.{4 * level + 3}", width * dim, width * dim // 2,
                                2 * width * dim if level < 2 else 0)
    for side, out, width in (("encoder", 2 * z, 4 * dim), ("decoder", 3, dim)):
        shapes |= _residual(f"{side}.middle.0", 4 * dim, 4 * dim) | _residual(f"{side}.middle.2", 4 * dim, 4 * dim)
        shapes |= _conv(f"{side}.middle.1.to_qkv", 4 * dim, 12 * dim, 1, axes=2)
        shapes |= _conv(f"{side}.middle.1.proj", 4 * dim, 4 * dim, 1, axes=2) | _conv(f"{side}.head.2", width, out, 3)
        shapes |= {f"{side}.middle.1.norm.gamma": (4 * dim, 1, 1), f"{side}.head.0.gamma": (width, 1, 1, 1)}
    return shapes


def _residual(at: str, into: int, out: int) -> Shapes:
    shapes: Shapes = {f"{at}.residual.0.gamma": (into, 1, 1, 1), f"{at}.residual.3.gamma": (out, 1, 1, 1)}
    shapes |= _conv(f"{at}.residual.2", into, out, 3) | _conv(f"{at}.residual.6", out, out, 3)
    return shapes | (_conv(f"{at}.shortcut", into, out, 1) if into != out else {})


def _resample(at: str, into: int, out: int, time: int) -> Shapes:
    shapes = _conv(f"{at}.resample.1", into, out, 3, axes=2)
    return shapes | ({f"{at}.time_conv.weight": (time, into, 3, 1, 1), f"{at}.time_conv.bias": (time,)} if time else {})


def vision_shapes(dim: int = TINY.clip_dim, layers: int = CLIP_LAYERS) -> Shapes:
    """Tensors of the visual half of CLIP."""
    shapes: Shapes = {"cls_embedding": (1, 1, dim), "pos_embedding": (1, 257, dim), "head": (dim, 8),
                      "patch_embedding.weight": (dim, 3, 14, 14)} | _norm("pre_norm", dim) | _norm("post_norm", dim)
    for at in (f"transformer.{layer}" for layer in range(layers)):
        shapes |= _norm(f"{at}.norm1", dim) | _norm(f"{at}.norm2", dim) | _linear(f"{at}.attn.to_qkv", dim, 3 * dim)
        shapes |= _linear(f"{at}.attn.proj", dim, dim)
        shapes |= _linear(f"{at}.mlp.0", dim, 4 * dim) | _linear(f"{at}.mlp.2", 4 * dim, dim)
    return {f"visual.{name}": shape for name, shape in shapes.items()}


def text_shapes(dim: int = TINY.text_dim, heads: int = 2, ffn: int = 32, layers: int = 2) -> Shapes:
    """Tensors of the umT5 encoder."""
    shapes: Shapes = {"token_embedding.weight": (len(VOCABULARY), dim), "norm.weight": (dim,)}
    for at in (f"blocks.{layer}" for layer in range(layers)):
        shapes |= {f"{at}.attn.{part}.weight": (dim, dim) for part in "qkvo"}
        shapes |= {f"{at}.ffn.gate.0.weight": (ffn, dim), f"{at}.ffn.fc1.weight": (ffn, dim),
                   f"{at}.ffn.fc2.weight": (dim, ffn), f"{at}.pos_embedding.embedding.weight": (32, heads),
                   f"{at}.norm1.weight": (dim,), f"{at}.norm2.weight": (dim,)}
    return shapes


def audio_shapes() -> Shapes:
    """Tensors of wav2vec 2.0."""
    dim, ffn, conv, kernel = (WAV2VEC[key] for key in ("hidden_size", "intermediate_size", "conv_dim", "conv_kernel"))
    shapes: Shapes = {"masked_spec_embed": (dim,)} | _norm("feature_extractor.conv_layers.0.layer_norm", conv[0])
    shapes |= {f"feature_extractor.conv_layers.{layer}.conv.weight": (width, 1 if layer == 0 else conv[layer - 1], size)
               for layer, (width, size) in enumerate(zip(conv, kernel, strict=True))}
    shapes |= _norm("feature_projection.layer_norm", conv[-1]) | _linear("feature_projection.projection", conv[-1], dim)
    size, groups = WAV2VEC["num_conv_pos_embeddings"], WAV2VEC["num_conv_pos_embedding_groups"]
    at = "encoder.pos_conv_embed.conv"
    shapes |= {f"{at}.bias": (dim,), f"{at}.weight_g": (1, 1, size), f"{at}.weight_v": (dim, dim // groups, size)}
    shapes |= _norm("encoder.layer_norm", dim)
    for at in (f"encoder.layers.{layer}" for layer in range(WAV2VEC["num_hidden_layers"])):
        for part in "qkv":
            shapes |= _linear(f"{at}.attention.{part}_proj", dim, dim)
        shapes |= _linear(f"{at}.attention.out_proj", dim, dim) | _norm(f"{at}.layer_norm", dim)
        shapes |= _linear(f"{at}.feed_forward.intermediate_dense", dim, ffn)
        shapes |= _linear(f"{at}.feed_forward.output_dense", ffn, dim) | _norm(f"{at}.final_layer_norm", dim)
    return shapes


def _linear(at: str, into: int, out: int) -> Shapes:
    return {f"{at}.weight": (out, into), f"{at}.bias": (out,)}


def _norm(at: str, width: int) -> Shapes:
    return {f"{at}.weight": (width,), f"{at}.bias": (width,)}


def _conv(at: str, into: int, out: int, kernel: int, axes: int = 3) -> Shapes:
    return {f"{at}.weight": (out, into, *[kernel] * axes), f"{at}.bias": (out,)}
