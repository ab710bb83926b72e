"""Files of weights → network: lazily, strictly, one tensor at a time; original names and those of diffusers.

Only safetensors and torch files that hold nothing but tensors are read: a pickle can run code.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from infinitetalk.errors import BadWeightsError

AGAIN = "Fetch the file again and compare its SHA-256"
PULL = "`infinidub models pull` fetches public weights"
NAMED = 4
"""Tensors that an error names; the others are counted."""

DAMAGE = (RuntimeError, ValueError, LookupError, TypeError, EOFError, OSError, AttributeError, AssertionError,
          ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile)
"""What torch's reader was seen to raise on files with altered or missing bytes."""

_TOP = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_IMAGE = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
_BLOCK = {
    "modulation": "scale_shift_table", "norm3": "norm2", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2",
    **{f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross_attn.{ours}": f"attn2.{theirs}" for ours, theirs in (_ATTENTION | _IMAGE).items()},
}
_TOP_BACK = {theirs: ours for ours, theirs in _TOP.items()}
_BLOCK_BACK = {theirs: ours for ours, theirs in _BLOCK.items()}

Network = TypeVar("Network", bound=nn.Module)


def original_to_diffusers(name: str) -> str:
    """Name of a tensor of the Wan base in diffusers' `WanTransformer3DModel`; names it does not have stay."""
    return _rename(name, _TOP, _BLOCK)


def diffusers_to_original(name: str) -> str:
    """The way back; an original name stays as it is."""
    return _rename(name, _TOP_BACK, _BLOCK_BACK)


def _rename(name: str, top: Mapping[str, str], block: Mapping[str, str]) -> str:
    at, table, rest = "", top, name
    if name.startswith("blocks.") and name.count(".") > 1:
        _, layer, rest = name.split(".", 2)
        at, table = f"blocks.{layer}.", block
    if rest in table:  # a parameter of its own, such as `modulation`
        return at + table[rest]
    module, _, kind = rest.rpartition(".")
    return f"{at}{table.get(module, module)}.{kind}" if module else name


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that lies in a file."""

    file: Path
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    """Its value, on the CPU; it may be a view of the file."""


def open_tensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """What is in the files, by original name; nothing is read yet, and a later file wins.

    Args:
        files: safetensors, or torch files (.pth, .pt, .bin, .ckpt) with the tensors at the top or under `state_dict`.

    Raises:
        BadWeightsError: A file is absent, damaged, or holds something else than tensors.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        stored = _open_safetensors(file) if file.suffix == ".safetensors" else _open_torch(file)
        found |= {diffusers_to_original(name): tensor for name, tensor in stored.items()}
    return found


def shards(folder: Path) -> tuple[Path, ...]:
    """The safetensors of a network: those that its index names, or all in the folder.

    Raises:
        BadWeightsError: The index is damaged. Files that it names need not be there.
    """
    index = next(iter(sorted(folder.glob("*.safetensors.index.json"))), None)
    if index is None:
        return tuple(sorted(folder.glob("*.safetensors")))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        outside = [name for name in names if Path(name).name != name]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadWeightsError(f"is no index of shards ({error!r})", where=str(index), hint=AGAIN) from error
    if outside or not names:
        raise BadWeightsError(f"names files outside its folder: {outside}" if outside else "names no files",
                              where=str(index), hint=AGAIN)
    return tuple(folder / name for name in sorted(names))


def _open_safetensors(file: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    _must_exist(file)
    try:
        handle: Any = safe_open(file, framework="pt", device="cpu")
        # in the order of the file, so that a disk reads on
        return {name: StoredTensor(file, tuple(handle.get_slice(name).get_shape()), partial(handle.get_tensor, name))
                for name in handle.offset_keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise BadWeightsError(f"is damaged or no safetensors file ({error})", where=str(file), hint=AGAIN) from error


def load_torch(file: Path) -> dict[str, Tensor]:
    """The tensors of a torch file, mapped into memory where its format allows it.

    Raises:
        BadWeightsError: It is absent, damaged, would have to run code, or holds something else than named tensors.
    """
    _must_exist(file)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise BadWeightsError("is damaged, or holds more than tensors and was not run", where=str(file),
                              hint="Take weights from their publisher, best as safetensors") from error
    except DAMAGE as error:
        known = error.strerror if isinstance(error, OSError) else ""  # torch's own words are a paragraph on its inside
        raise BadWeightsError("is damaged or no torch file" + (f" ({known})" if known else ""), where=str(file),
                              hint=AGAIN) from error
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not (isinstance(inner, dict) and inner and all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in inner.items())):
        raise BadWeightsError("holds no named tensors", where=str(file),
                              hint="Expected a state dict, or a dict with one under 'state_dict'")
    return dict(inner)


def _open_torch(file: Path) -> dict[str, StoredTensor]:
    tensors = load_torch(file)
    return {name: StoredTensor(file, tuple(value.shape), partial(tensors.__getitem__, name))
            for name, value in tensors.items()}


def _must_exist(file: Path) -> None:
    if not file.is_file():
        raise BadWeightsError("is not there", where=str(file), hint=PULL)


def assemble(network: Network, stored: Mapping[str, StoredTensor], dtype: torch.dtype,
             device: torch.device | str) -> Network:
    """Fill a network that was built on the meta device, one tensor at a time.

    Memory stays at the filled part and one tensor more.

    Args:
        network: Its state's names and shapes are what must be there.
        stored: From `open_tensors`.
        dtype: Of the filled network's floating-point tensors.
        device: Where it is filled.

    Raises:
        BadWeightsError: Tensors are missing, extra or misshapen (nothing was read), or a file is damaged.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    _must_match(wanted, stored)
    for name, tensor in stored.items():
        owner, _, leaf = name.rpartition(".")
        value = _placed(tensor, dtype, device)
        network.get_submodule(owner).load_state_dict({leaf: value}, strict=False, assign=True)
    return network


def _must_match(wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor]) -> None:
    wrong = {name: f"{name} {tensor.shape} should be {wanted[name]}" for name, tensor in stored.items()
             if name in wanted and tensor.shape != wanted[name]}
    told = listed(missing=[name for name in wanted if name not in stored],
                  unknown=[name for name in stored if name not in wanted], misshapen=list(wrong.values()))
    if told:
        suspects = {stored[name].file for name in stored if name in wrong or name not in wanted}
        files = sorted(suspects or {tensor.file for tensor in stored.values()})
        raise BadWeightsError(told, where=", ".join(map(str, files)),
                              hint="These files do not make up the network together: check which base and which "
                                   "overlay they are of")


def listed(*, missing: Sequence[str] = (), unknown: Sequence[str] = (), misshapen: Sequence[str] = ()) -> str:
    """What keeps tensors from being a network's, in one clause; '' where nothing does.

    Args:
        missing: Names that the network has and the file has not.
        unknown: Names that the file has and the network has not.
        misshapen: Name and both shapes of those that both have.
    """
    kinds = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    return "; ".join(_counted(kind, names) for kind, names in kinds.items() if names)


def _counted(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {kind}: {', '.join(names[:NAMED])}{more}"


def _placed(tensor: StoredTensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    from safetensors import SafetensorError

    try:
        value = tensor.read()
    except (SafetensorError, OSError, RuntimeError) as error:
        raise BadWeightsError(f"is damaged ({error})", where=str(tensor.file), hint=AGAIN) from error
    # never the view itself: it would keep the file mapped, and a file that changes would change the network
    placed = torch.empty(value.shape, dtype=dtype if value.is_floating_point() else value.dtype, device=device)
    return placed.copy_(value)
