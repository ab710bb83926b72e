"""Engines on the weights of this machine, for tests marked `models`: skipped, with the command that helps, without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from models.engines import EngineCache, describe
from models.ports import EngineHome
from models.records import EngineRef, Scalar
from models.weights import WeightStore

EXAMPLES = Path(__file__).parents[1] / "examples" / "harbor-lights"


def weights(*names: str) -> WeightStore:
    """The machine's weights; skips the test when one of `names` is absent."""
    store = WeightStore(Path(os.environ.get("INFINIDUB_WEIGHTS", "~/.cache/infinidub/weights")).expanduser())
    absent = [name for name in names if not store.present(name)]
    if absent:
        pytest.skip(f"needs: infinidub models pull {' '.join(absent)}")
    return store


def cache(*names: str) -> EngineCache:
    """Engines that run on weights `names`."""
    store = weights(*names)
    return EngineCache(lambda port, name: EngineHome(weights=store.folder), store.hashes)


def engine(port: str, name: str, *needs: str, **options: Scalar) -> tuple[Any, EngineRef]:
    """An engine that runs on weights `needs`, and how recipes know it."""
    store = weights(*needs)
    ref = describe(port, name, options, store.hashes)
    return EngineCache(lambda _port, _name: EngineHome(weights=store.folder), store.hashes).get(port, ref), ref
