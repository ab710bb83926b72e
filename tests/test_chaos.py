"""A pool whose processes are killed at drawn moments delivers what an undisturbed one does; nothing is left over."""

from __future__ import annotations

import pytest

from tests.pool.chaos import live_through
from tests.pool.stack import Dubbed, Stack


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(50))
def test_a_schedule(pool: Stack, dubbed: Dubbed, seed: int) -> None:
    live_through(pool, dubbed, seed)
