"""What a shot tells the transformer besides noise, each distinct thing computed once: y and the condition tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor

from infinitetalk.conditions import Condition, Tokens
from infinitetalk.errors import BadInputError
from infinitetalk.guidance import Pass
from infinitetalk.networks import Networks
from infinitetalk.shapes import TEMPORAL, latent_frames

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """Remembers what was made for the last key: a stream asks for the same thing again and again, or never again."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Value] | None = None

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives for this key; the value before it is dropped first."""
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            self._kept = (key, make())
        return self._kept[1]


class Conditioner:
    """The conditions of one shot's chunks. Text is embedded once, a picture and its latent once while it stays."""

    def __init__(self, networks: Networks, text: Tensor, negative: Tensor | None) -> None:
        """Nothing is computed yet.

        Args:
            networks: Those of the stream.
            text: States of the prompt, (k, text_dim).
            negative: States of the negative prompt, if a pass needs it.
        """
        self._networks, self._text, self._negative = networks, text, negative
        self._image: Latest[Tokens] = Latest()
        self._latent: Latest[Tensor] = Latest()
        self._silence: Latest[Tokens] = Latest()

    def known(self, keyframes: Mapping[int, Tensor], frames: int, *, soft: bool = False) -> Tensor:
        """What is known of a chunk beforehand: four channels of mask, then the reference latent → (4+C, T, h, w).

        The latent is that of the keyframes with what `Networks.between` says after them (Wan 2.1, arXiv 2503.20314,
        section 5.1; the grey is the published implementation's: its latents are not zero).

        Args:
            keyframes: Position → picture (3, H, W).
            frames: F.
            soft: Pictures after the first are shown and not marked as given (`reference.Reference.soft`).
        """
        key = (frames, *((position, digest(picture)) for position, picture in sorted(keyframes.items())))
        latent = self._latent.get(key, lambda: self._encode(keyframes, frames))  # (C, T, h, w)
        mask = keyframe_mask([0] if soft else keyframes, frames).to(latent)[..., None, None]      # (4, T, 1, 1)
        return torch.cat((mask.expand(-1, -1, *latent.shape[2:]), latent)).to(self._networks.device)

    def conditions(
        self,
        passes: Iterable[Pass],
        picture: Tensor,  # (3, H, W)
        windows: Tensor,  # (P, F, 5, L, C)
    ) -> dict[Pass, Condition]:
        """The tokens of every pass; passes share what they have in common."""
        transformer = self._networks.transformer
        with torch.no_grad():
            image = self._image.get(digest(picture), lambda: transformer.embed_image(self._networks.vision(picture)))
            heard = transformer.embed_audio(windows[None])

            def condition(which: Pass) -> Condition:
                text = self._prompt if which.text else self._unwanted
                if which.audio:
                    return Condition(text, image, heard, windows.shape[0])
                # Nobody is heard: one person of zeros, also where two are told apart (as published).
                nobody = torch.zeros_like(windows[None, :1])                     # (1, 1, F, 5, L, C)
                silence = self._silence.get(nobody.shape, lambda: transformer.embed_audio(nobody))
                return Condition(text, image, silence, 1)

            return {which: condition(which) for which in passes}

    @cached_property
    def _prompt(self) -> Tokens:
        return self._networks.transformer.embed_text([self._text])

    @cached_property
    def _unwanted(self) -> Tokens:
        if self._negative is None:
            raise BadInputError("guidance by text needs a negative prompt", where="negative",
                                hint="Give one, or guide with a text scale of 1")
        return self._networks.transformer.embed_text([self._negative])

    def _encode(self, keyframes: Mapping[int, Tensor], frames: int) -> Tensor:
        if self._networks.between == "pictures":
            at = {(position + TEMPORAL - 1) // TEMPORAL: self._networks.codec.encode(picture[:, None])
                  for position, picture in sorted(keyframes.items())}            # of (C, 1, h, w)
            return torch.cat([at[max(one for one in at if one <= index)] for index in range(latent_frames(frames))], 1)
        clip = torch.zeros(3, frames, *keyframes[0].shape[1:])                   # (3, F, H, W)
        for position, picture in keyframes.items():
            clip[:, position] = picture
        return self._networks.codec.encode(clip)


def keyframe_mask(keyframes: Iterable[int], frames: int) -> Tensor:
    """Which pixel frames are given, folded as the VAE folds time: → (4, T).

    The first latent frame stands for one pixel frame, which all four channels repeat.
    """
    given = torch.zeros(frames)                                                  # (F,)
    given[list(keyframes)] = 1
    return torch.cat((given[:1].expand(TEMPORAL - 1), given)).view(-1, TEMPORAL).T


def digest(picture: Tensor) -> bytes:
    """Tells pictures apart by what is in them."""
    return hashlib.sha256(picture.detach().cpu().contiguous().numpy().tobytes()).digest()
