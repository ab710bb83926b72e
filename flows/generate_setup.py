"""What `generate` makes films with: weights, LoRAs and device, all looked at before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.settings import Settings
from models.errors import InputError, SetupError

if TYPE_CHECKING:
    import torch

    from infinitetalk.engine import Engine
    from infinitetalk.files import Files

Lora = tuple[Path, float]
"""File and strength."""


@dataclass(frozen=True)
class Machine:
    """Where it is computed, and how."""

    device: str
    memory: str
    attention: str

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks."""
        import torch

        return torch.float32 if self.device == "cpu" else torch.bfloat16

    @property
    def rounding(self) -> tuple[str, bool, bool]:
        """What decides on the result, if only a little."""
        return str(self.dtype), self.memory == "fp8", self.attention == "sage"


def machine(device: str, memory: str, attention: str, settings: Settings) -> Machine:
    """Check the names of device, memory profile and attention.

    Raises:
        InputError: There is no such thing.
        SetupError: It is not on this machine.
    """
    from infinitetalk.attention import choose
    from infinitetalk.memory import PROFILES

    if memory not in (*PROFILES, "auto"):
        raise InputError(f"there is no profile {memory[:40]!r}", where="--memory",
                         hint=f"There are: auto, {', '.join(PROFILES)}")
    chosen = _device(device, settings)
    choose(attention, chosen)
    return Machine(chosen, memory, attention)


def _device(asked: str, settings: Settings) -> str:
    import torch

    here = torch.cuda.is_available()
    device = asked if asked != "auto" else settings.device if settings.device != "cpu" or not here else "cuda"
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device, re.ASCII):
        raise InputError(f"{device[:40]!r} is no device", where="--device", hint="Say auto, cpu, cuda or e.g. cuda:1")
    if device.startswith("cuda") and not here:
        raise SetupError(f"the device is {device}, and torch finds no CUDA GPU", where="--device",
                         hint="Install the driver, or a torch that is built for it")
    if device.startswith("cuda:") and int(device[5:]) >= torch.cuda.device_count():
        raise SetupError(f"the device is {device}, and torch finds {torch.cuda.device_count()} GPUs", where="--device",
                         hint="They count from 0")
    return device


def found_lora(text: str, settings: Settings) -> Lora:
    """FILE[:SCALE]; FILE may be a name in models.lock.

    Raises:
        InputError: There is no such file.
    """
    from models.weights import WeightStore

    found = re.fullmatch(r"(.+?)(?::(-?[0-9]+(?:\.[0-9]*)?))?", text)
    if not found:
        raise InputError(f"{text[:80]!r} is no FILE[:SCALE]", where="--lora", hint="Say e.g. mine.safetensors:0.8")
    path, scale = Path(found[1]).expanduser(), float(found[2] or 1)
    store = WeightStore(settings.weights, mirror=settings.weights_mirror, stamps=settings.stamps)
    if not path.exists() and found[1] in store.names():
        path = store.folder(found[1]) / "lora.safetensors"
    if not path.is_file():
        raise InputError("there is no such file", where=f"--lora {found[1]}",
                         hint="Name a file, or what `infinidub models list` has for a LoRA")
    return path, scale


@dataclass(frozen=True)
class Weights:
    """Files of weights that are there."""

    files: Files
    loras: tuple[Lora, ...]

    def identity(self) -> str:
        """Tells these files from others, by name, size and time: hashing would take minutes."""
        networks = self.files
        paths = (*networks.transformer, networks.codec, networks.vision, networks.text, networks.tokenizer,
                 networks.audio, *(path for path, _ in self.loras))
        told = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        return repr((told, [scale for _, scale in self.loras]))

    def load(self, on: Machine, size: tuple[int, int], frames: int) -> Engine:
        """Load what makes chunks of `frames` frames of (H, W)."""
        from infinitetalk.engine import load

        return load(self.files, device=on.device, dtype=on.dtype, memory=on.memory, size=size, frames=frames,
                    attention=on.attention, loras=self.loras)


def found_weights(name: str, size: str, two: bool, loras: Sequence[Lora], settings: Settings) -> Weights:
    """Weights by their name in models.lock, or in a folder as they are published.

    Args:
        name: Either; empty: by `size` and `two`.
        size: Size class; of two bases in a folder the one of it is taken.
        two: Whether two persons must be told apart.
        loras: Are merged into them; their names and shapes are checked.
        settings: Where the store is.

    Raises:
        InputError: There are no such weights, or they do not tell two persons apart.
        SetupError: Some are not there; all of these are named, and the command that gets them.
    """
    from infinitetalk.lora import check_header
    from infinitetalk.weights import open_tensors

    name = name or f"infinitetalk-{size}p{'-multi' if two else ''}"
    folder = Path(name).expanduser()
    files = files_under(folder, size, two) if folder.is_dir() else _stored(name, two, settings)
    for path, _ in loras:
        check_header(open_tensors([path]), open_tensors(files.transformer), str(path))
    return Weights(files, tuple(loras))


def files_under(folder: Path, size: str, two: bool) -> Files:
    """Files in a folder as they are published.

    Raises:
        SetupError: Some are not there.
    """
    from infinitetalk.files import BASES, Files

    base = next((base for base in BASES if size in base and (folder / base).is_dir()), "")
    single, multi = (Files.under(folder, variant, base) for variant in ("single", "multi"))
    files = multi if two or (multi.overlay.is_file() and not single.overlay.is_file()) else single
    absent = files.missing()
    if absent:
        group = f"infinitetalk-{files.size_class}p{'-multi' if two else ''}"
        listed = ", ".join(f"{one.place.relative_to(folder)} ({one.what})" for one in absent)
        raise SetupError(f"these are not in the folder: {listed}", where=f"--weights {folder}",
                         hint=f"Put them there; or get all with `infinidub models pull {group}`, and say --weights "
                              f"{group}")
    return files


def _stored(name: str, two: bool, settings: Settings) -> Files:
    from models.engines.infinitetalk_files import COMPANIONS, ENTRIES, WAV2VEC, stored_files
    from models.weights import WeightStore

    if name not in ENTRIES:
        raise InputError("no weights have this name, and no folder", where=f"--weights {name[:80]}",
                         hint=f"There are: {', '.join(ENTRIES)}")
    if two and not name.endswith("-multi"):
        raise InputError("these weights do not tell two people apart", where=f"--weights {name}",
                         hint=f"Take {name}-multi")
    store = WeightStore(settings.weights, mirror=settings.weights_mirror, stamps=settings.stamps)
    store.need([*ENTRIES[name], COMPANIONS, WAV2VEC])
    return stored_files(name, store.folder)
