"""Who somebody is, drawn from a seed: shape, skin, eyes, hair, clothes. Nobody in particular is meant."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infinitetalk.world.body import body
from infinitetalk.world.clothes import LAYERS
from infinitetalk.world.hair import STYLES
from infinitetalk.world.scene import Floats, Person

Colour = tuple[float, float, float]
HAIR_STYLES = tuple(STYLES)
COLLARS = tuple(LAYERS)
CLOTHES = {"tee": ("crew", "vee", "scoop"), "sweater": ("crew", "roll", "vee"), "shirt": ("folded",),
           "hoodie": ("hood",), "jacket": ("lapel",), "cardigan": ("open",)}
"""Kinds of clothes and the collars they come with."""
PATTERNS = ("plain", "stripes", "checks", "dots", "heather")
SKINS = {"african": ((0.115, 0.052, 0.030), (0.30, 0.155, 0.095)), "asian": ((0.46, 0.275, 0.175), (0.66, 0.44, 0.32)),
         "caucasian": ((0.50, 0.30, 0.21), (0.72, 0.485, 0.385))}
"""Darkest and lightest tone of each ancestry."""
HAIRS: tuple[tuple[Colour, float], ...] = (
    ((0.010, 0.008, 0.007), 0.30), ((0.030, 0.017, 0.010), 0.24), ((0.075, 0.036, 0.018), 0.18),
    ((0.16, 0.085, 0.036), 0.10), ((0.36, 0.23, 0.10), 0.07), ((0.18, 0.052, 0.018), 0.05), ((0.26, 0.25, 0.24), 0.06))
"""Colours of hair, and how common each is."""
IRISES: tuple[Colour, ...] = ((0.055, 0.024, 0.010), (0.10, 0.048, 0.018), (0.13, 0.10, 0.040), (0.075, 0.105, 0.055),
                              (0.085, 0.145, 0.22), (0.14, 0.18, 0.20))
CLOTHS: tuple[Colour, ...] = (
    (0.020, 0.035, 0.110), (0.26, 0.030, 0.035), (0.022, 0.110, 0.060), (0.42, 0.42, 0.43), (0.018, 0.018, 0.020),
    (0.30, 0.19, 0.040), (0.085, 0.030, 0.130), (0.035, 0.170, 0.230), (0.44, 0.17, 0.11), (0.65, 0.63, 0.58),
    (0.055, 0.085, 0.17), (0.16, 0.09, 0.05), (0.46, 0.30, 0.33), (0.09, 0.10, 0.11), (0.60, 0.40, 0.09))
MEN = {"short": 0.36, "quiff": 0.22, "shaved": 0.13, "curls": 0.12, "fringe": 0.07, "bald": 0.07, "bun": 0.03}
WOMEN = {"long": 0.28, "bob": 0.20, "bun": 0.16, "pageboy": 0.13, "curls": 0.13, "short": 0.05, "fringe": 0.05}


def _traits(r: np.random.Generator) -> dict[str, float]:
    """Age, build and ancestry of an adult; names as the asset's."""
    man = bool(r.random() > 0.5)
    gender = float(r.uniform(-0.3, 0.05) if man else r.uniform(0.95, 1.25))
    african, asian, caucasian = (float(x) for x in r.dirichlet([0.6] * 3))
    return {"gender": gender, "age": float(r.uniform(0.5, 0.78)), "muscle": float(r.uniform(0.38, 0.6)),
            "weight": float(r.uniform(0.34, 0.66)), "height": float(r.uniform(0.46, 0.54)),
            "proportions": float(r.uniform(0.5, 0.75)), "cupsize": float(0 if man else r.uniform(0.25, 0.45)),
            "african": african, "asian": asian, "caucasian": caucasian}


def _skin(traits: dict[str, float], r: np.random.Generator) -> Floats:
    """A tone among those of one's ancestry."""
    share = float(r.uniform(0.1, 1))
    tones = [traits[name] * (np.array(low) * (1 - share) + np.array(high) * share)
             for name, (low, high) in SKINS.items()]
    return np.asarray(sum(tones), np.float32)


def _hair(traits: dict[str, float], r: np.random.Generator) -> Floats:
    """A colour; fair and red ones among fair people, grey ones among the older."""
    fair = traits["caucasian"] ** 1.5
    common = np.array([p for _, p in HAIRS])
    odds = common * np.array([1, 1, 1, fair * 2, fair * 2, fair * 2, 2 * (traits["age"] > 0.68)])
    return np.array(HAIRS[int(r.choice(len(HAIRS), p=odds / odds.sum()))][0], np.float32) * float(r.uniform(0.8, 1.25))


def _pick(odds: dict[str, float], r: np.random.Generator) -> str:
    """One of the keys."""
    weights = np.array(list(odds.values()))
    return list(odds)[int(r.choice(len(odds), p=weights / weights.sum()))]


def _rgb(colour: NDArray[Any]) -> Colour:
    """Three plain numbers in 0 … 1."""
    red, green, blue = (float(x) for x in np.clip(colour, 0.003, 1))
    return red, green, blue


def _cloth_colours(r: np.random.Generator) -> tuple[Colour, Colour]:
    """Two that can be told apart."""
    first, *others = (np.array(CLOTHS[i]) for i in r.permutation(len(CLOTHS)))
    second = max(others[:3], key=lambda c: float(np.abs(np.sqrt(c) - np.sqrt(first)).sum()))
    return _rgb(first * r.uniform(0.85, 1.15)), _rgb(second * r.uniform(0.85, 1.15))


def person(seed: int) -> Person:
    """Somebody; the same seed is the same person.

    Args:
        seed: Any number from 0.
    """
    r = np.random.default_rng([seed, 0x9E59])
    traits = _traits(r)
    identity = body().identity(traits, np.asarray(r.normal(0, 0.8, body().shapes.shape[0]), np.float32))
    man = traits["gender"] < 0.5
    skin, hair = _skin(traits, r), _hair(traits, r)
    rosy = np.array([0.90, 0.63, 0.64]) if man else np.array([0.92, 0.50, 0.55])
    eyes = IRISES[int(r.integers(2 if traits["caucasian"] < 0.45 else len(IRISES)))]
    clothes = list(CLOTHES)[int(r.integers(len(CLOTHES)))]
    short = clothes == "tee"
    return Person(
        seed=seed, identity=identity, feminine=float(np.clip(traits["gender"], 0, 1)),
        skin=_rgb(skin), lips=_rgb(skin * rosy * r.uniform(0.85, 1.05)),
        iris=eyes, hair=_rgb(hair), hair_style=_pick(MEN if man else WOMEN, r),
        brows=float(r.uniform(0.9, 1.35) if man else r.uniform(0.65, 0.95)),
        stubble=float(r.choice([0, 0.25, 0.5, 0.8]) if man else 0), clothes=clothes,
        collar=str(r.choice(CLOTHES[clothes])), sleeve=float(r.uniform(0.12, 0.3) if short else r.uniform(0.9, 1.0)),
        pattern="plain" if clothes in {"jacket", "hoodie"} else str(r.choice(PATTERNS, p=[0.4, 0.2, 0.13, 0.07, 0.2])),
        colours=_cloth_colours(r))
