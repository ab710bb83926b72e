"""Records the project's own vectors: inputs, tiny weights and results of our code, in the format of `tests/golden.py`.

They hold numbers still where the published implementation's recordings are not at hand. Run it when a change of
numbers is meant, with those recordings at hand to show that it is right: `python -m tests.record_vectors`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from infinitetalk.conditions import Condition
from infinitetalk.config import TransformerConfig
from infinitetalk.guidance import Guidance
from infinitetalk.networks import Networks
from infinitetalk.persons import assign
from infinitetalk.pictures import fit
from infinitetalk.plan import ChunkSize
from infinitetalk.sampling import Sampling
from infinitetalk.speakers import reference_map
from infinitetalk.stream import Chunks, Embeddings, Shot, StreamSettings, seeded_noise
from infinitetalk.transformer import Transformer
from infinitetalk.vae import WanCodec
from infinitetalk.vision import ClipVision
from tests.golden import FIELDS, OWN
from tests.tiny_infinitetalk import base_shapes, codec_shapes, overlay_shapes, vision_shapes, weights

CONFIG = TransformerConfig(dim=32, ffn_dim=48, freq_dim=16, num_heads=2, num_layers=2, text_len=8, text_dim=12,
                           clip_dim=16, audio_layers=2, audio_channels=6, audio_hidden=10, audio_dim=8, audio_tokens=3)
TARGET, SOURCE = (32, 48), (34, 50)


def told(config: TransformerConfig) -> dict[str, Any]:
    """The configuration under the names of the format."""
    back = {ours: theirs for theirs, ours in FIELDS.items()}
    values = {back.get(name, name): value for name, value in asdict(config).items()}
    return {name: value for name, value in values.items() if name not in {"clip_tokens", "eps"}} | {"vae_scale": 4}


def save(name: str, about: dict[str, Any], tensors: dict[str, Tensor], parts: dict[str, Tensor]) -> None:
    """Write one file and what is told of it."""
    OWN.mkdir(exist_ok=True)
    save_file({key: value.detach().clone().contiguous()
               for key, value in (tensors | {f"w.{key}": value for key, value in parts.items()}).items()},
              OWN / f"{name}.safetensors")
    about = {"what": "made by this project's own code: python -m tests.record_vectors", "config": told(CONFIG), **about,
             "file": f"{name}.safetensors", "weights_prefix": "w.",
             "weights": {key: list(value.shape) for key, value in parts.items()}}
    (OWN / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def draw(name: str, *shape: int) -> Tensor:
    """Values that depend on the name alone."""
    return seeded_noise(0, sum(name.encode()), shape)


def transformer() -> tuple[Transformer, dict[str, Tensor]]:
    """The transformer and its weights."""
    state = weights(base_shapes(CONFIG) | overlay_shapes(CONFIG), 0)
    network = Transformer(CONFIG)
    network.load_state_dict(state)
    return network.eval(), state


@torch.no_grad()
def record_forward(name: str, persons: int) -> None:
    """One forward with all that happens inside."""
    network, state = transformer()
    frames, rows, columns = 3, 6, 4
    given = {"in.x": draw("x", 16, frames, rows, columns), "in.y": draw("y", 1, 20, frames, rows, columns),
             "in.context": draw("text", 5, CONFIG.text_dim), "in.clip_fea": draw("clip", 1, 257, CONFIG.clip_dim),
             "in.audio": draw("audio", persons, 9, 5, CONFIG.audio_layers, CONFIG.audio_channels),
             "in.ref_target_masks": torch.zeros(3, rows, columns), "in.t": torch.tensor([640.0])}
    masks = given["in.ref_target_masks"]
    masks[0, :, :2], masks[1, 2:, 2:], masks[2, :2, 2:] = 1, 1, 1
    if persons == 1:
        masks[:] = 1
    seen: dict[str, Any] = {}
    for path, module in network.named_modules():
        module.register_forward_hook(lambda _, inputs, out, path=path: seen.update({path: (inputs, out)}))
    condition = Condition(network.embed_text([given["in.context"]]), network.embed_image(given["in.clip_fea"]),
                          network.embed_audio(given["in.audio"][None]), persons)
    made = network(given["in.x"][None], given["in.y"], given["in.t"], condition, masks)
    inside = {f"mid.{path}": seen[path][1] for path in ("time_embedding", "time_projection", "text_embedding", "head")}
    grid = (frames, rows // 2, columns // 2)
    inside["mid.patch_embedding"] = seen["patch_embedding"][1].mT.unflatten(2, grid)
    inside["mid.audio_proj"] = seen["audio_proj"][1][0].unflatten(1, (persons, -1)).transpose(0, 1)
    for layer in range(CONFIG.num_layers):
        at = f"blocks.{layer}"
        inside |= {f"mid.{at}{part}": seen[at + part][1] for part in ("", ".cross_attn", ".audio_cross_attn", ".ffn")}
        inputs, (attended, _) = seen[f"{at}.self_attn"]
        q, k = network.get_submodule(f"{at}.self_attn").queries_keys(*inputs[:2])
        inside[f"mid.{at}.self_attn.0"] = attended
        inside[f"mid.{at}.self_attn.1"] = reference_map(q[0], k[0], (masks[:, ::2, ::2] > 0).flatten(1))
    save(name, {"humans": persons}, given | inside | {"out": made}, state)


@torch.no_grad()
def record_stream(name: str, persons: int) -> None:
    """Three chunks with their noise, what the network is given first, latents and pictures."""
    network, state = transformer()
    codec, vision = weights(codec_shapes(), 0), weights(vision_shapes(CONFIG.clip_dim), 0)
    networks = Networks(network, WanCodec.published(codec), ClipVision.from_published(vision, heads=2))
    frames, size, total = 11, ChunkSize(9, 5), 16
    y, x = torch.meshgrid(torch.arange(SOURCE[0]), torch.arange(SOURCE[1]), indexing="ij")
    pictures = torch.stack([torch.stack(((x * 3 + i * 5) % 256, (y * 5 + i) % 256, (x + y + 2 * i) % 256), -1)
                            for i in range(frames)]).to(torch.uint8)  # (frames, H, W, 3)
    given = {"in.source_frames": pictures, "in.context": draw("text", 5, CONFIG.text_dim),
             "in.context_null": draw("negative", 4, CONFIG.text_dim)}
    given |= {f"in.audio_emb.{person}": draw(f"audio {person}", total, CONFIG.audio_layers, CONFIG.audio_channels)
              for person in range(persons)}
    fitted = [fit(one.numpy(), TARGET) for one in pictures]
    heard = torch.stack([given[f"in.audio_emb.{person}"] for person in range(persons)])
    masks = assign((None, None), (), SOURCE, TARGET).masks if persons == 2 else None
    shot = Shot(lambda index: fitted[min(index, frames - 1)], total, TARGET, Embeddings(heard, "published"),
                given["in.context"], given["in.context_null"], masks)
    sampling = Sampling(steps=2, shift=3.0, guidance=Guidance(5.0, 4.0))
    chunks = Chunks(networks, shot, StreamSettings(size, sampling, tail="full"))
    calls: list[Any] = []
    network.register_forward_hook(lambda _, inputs, out: calls.append((*inputs, out)))
    last, video, first_calls = None, [], 0
    for span in chunks.spans:
        calls.clear()
        k, color = span.index, last.color if last else chunks.color()
        latent = chunks.latent(span, last)
        first_calls = first_calls or len(calls)
        noisy, known, *_, made = calls[0]
        decoded = torch.cat(list(networks.codec.decode(latent)), 1)  # (3, F, H, W)
        pixels = torch.cat(list(chunks.pixels(span, latent, color)), 1)  # (3, F, H, W)
        given |= {f"in.noise.{k}": seeded_noise(0, k, latent.shape), f"mid.first_model_in.{k}": noisy[0],
                  f"mid.first_model_out.{k}": made, f"mid.y.{k}": known, f"out.latent.{k}": latent,
                  f"mid.audio_window.{k}": shot.audio.windows(span.start, span.frames), f"out.decoded.{k}": decoded}
        if k == 0:
            given["mid.clip.0"] = vision_states = networks.vision(fitted[0])
            assert vision_states.shape[1] == CONFIG.clip_tokens
            order = [("pos", persons), ("neg", persons), ("neg", 1)]
            told_calls = [{"t": float(one[2]), "humans": order[i % 3][1], "text": order[i % 3][0]}
                          for i, one in enumerate(calls)]
        video.append(pixels[:, span.context:])
        last = chunks.follow(span, pixels[:, -chunks.shared:], color)
    if masks is not None:
        given["mid.ref_target_masks"] = masks
    given["out.video"] = torch.cat(video, 1)[:, :total]
    about = {"clip": {"heads": 2}, "humans": persons, "frame_num": size.frames, "motion_frame": size.context,
             "steps": sampling.steps, "shift": sampling.shift, "text_guide": 5.0, "audio_guide": 4.0,
             "color_correction": 1.0, "audio_len": total, "max_frames_num": 1000, "apg": None, "bbox": None,
             "target": TARGET, "source_hw": SOURCE, "frame_ids_requested": [span.start for span in chunks.spans],
             "chunks": len(chunks.spans), "passes_per_chunk": first_calls, "calls_first_chunk": told_calls,
             "is_image": False}
    parts = {f"{part}.{key}": value for part, values in (("dit", state), ("vae", codec), ("clip", vision))
             for key, value in values.items()}
    save(name, about, given, parts)


if __name__ == "__main__":
    record_forward("dit_single", 1)
    record_forward("dit_two_person", 2)
    record_stream("stream_two_person", 2)
