"""Blocks of a transformer that live in host memory and visit the device, one ahead of use.

Each block lies in one flat piece of host memory (pinned for CUDA, so that copies run beside the arithmetic). The device
holds two such pieces: while a block computes in one, the next is copied into the other on a stream of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Bytes: where a tensor may begin in its piece; any dtype and any copy engine is content with it."""


class _Block:
    """A block's tensors, side by side in host memory."""

    def __init__(self, block: nn.Module, *, pinned: bool) -> None:
        self._tensors: list[Tensor] = list(chain(block.parameters(), block.buffers()))
        sizes = [math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT for tensor in self._tensors]
        self._starts = [0, *accumulate(sizes)][:-1]
        self.host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned)
        for tensor, view in zip(self._tensors, self._views(self.host), strict=True):
            view.copy_(tensor.detach())
        self.look_at(self.host)

    def _views(self, piece: Tensor) -> Iterator[Tensor]:
        for tensor, start in zip(self._tensors, self._starts, strict=True):
            yield piece[start:start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)

    def look_at(self, piece: Tensor) -> None:
        """Let the block's tensors be those of a piece of memory."""
        views = list(self._views(piece))
        for tensor, view in zip(self._tensors, views, strict=True):
            tensor.data = view


class _Slot:
    """A piece of device memory that blocks take turns in."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.piece = torch.empty(size, dtype=torch.uint8, device=device)
        self.block: int | None = None
        """Which visitor is in it, or on its way."""
        self.filled: Any = None
        """Event on the copy stream: the block is there."""


class BlockOffload:
    """Runs a transformer on a device that its blocks do not fit into.

    For inference alone: parameters move between forwards. Results equal those of a resident transformer bit for bit.

    Args:
        transformer: Whatever has `blocks` and calls them in order; it lies on the CPU, its LoRAs merged and its weights
            quantised already. Blocks that visit become views of flat host memory, all else moves to the device.
        device: Where it computes.
        resident: How many blocks stay on the device.
    """

    def __init__(self, transformer: nn.Module, device: torch.device | str, resident: int = 0) -> None:
        self.device = torch.device(device)
        self._cuda = self.device.type == "cuda"
        blocks: Sequence[nn.Module] = list(transformer.blocks)
        moving = visitors(len(blocks), resident)
        self._blocks = [_Block(blocks[index], pinned=self._cuda) for index in moving]
        largest = max((block.host.nbytes for block in self._blocks), default=0)
        self._slots = [_Slot(largest, self.device) for _ in range(min(2, len(moving)))]
        self._stream = torch.cuda.Stream(self.device) if self._cuda else None
        self._hooks = [blocks[index].register_forward_pre_hook(self._arriving(turn))
                       for turn, index in enumerate(moving)]
        for index in set(range(len(blocks))) - set(moving):
            blocks[index].to(self.device)
        _move_all_but(transformer, "blocks", self.device)

    def remove(self) -> None:
        """Undo it, but for what moved to the device; the blocks that visited are in host memory."""
        for hook in self._hooks:
            hook.remove()
        if self._stream is not None:
            self._stream.synchronize()  # a copy may be on its way into a slot
        for block in self._blocks:
            block.look_at(block.host)
        self._slots.clear()

    def _arriving(self, index: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(block: nn.Module, given: tuple[Any, ...]) -> None:
            self._take(index)
        return hook

    def _take(self, index: int) -> None:
        """Have a visitor on the device now, and the next one on its way."""
        here = next((slot for slot in self._slots if slot.block == index), None) or self._fetch(index, self._slots[0])
        if self._cuda:
            torch.cuda.current_stream(self.device).wait_event(here.filled)
        self._blocks[index].look_at(here.piece)
        following = (index + 1) % len(self._blocks)
        other = next((slot for slot in self._slots if slot is not here), here)
        if other is not here and other.block != following:
            self._fetch(following, other)

    def _fetch(self, index: int, slot: _Slot) -> _Slot:
        """Start to copy a block into a slot; the one that was in it goes home, after whatever still needs it."""
        if slot.block is not None:
            self._blocks[slot.block].look_at(self._blocks[slot.block].host)
        slot.block, source = index, self._blocks[index].host
        target = slot.piece[:source.nbytes]
        if self._stream is None:
            target.copy_(source)
            return slot
        asked_for = torch.cuda.current_stream(self.device).record_event()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(asked_for)
            target.copy_(source, non_blocking=True)
            slot.filled = self._stream.record_event()
        return slot


def visitors(blocks: int, resident: int) -> list[int]:
    """Blocks that do not stay, spread evenly: while those between them compute, the next can come."""
    moving = max(0, blocks - resident)
    return [turn * blocks // moving for turn in range(moving)]


def _move_all_but(module: nn.Module, kept: str, device: torch.device) -> None:
    """Move a module's own tensors and its children but one."""
    for name, child in module.named_children():
        if name != kept:
            child.to(device)
    for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False)):
        tensor.data = tensor.data.to(device)
