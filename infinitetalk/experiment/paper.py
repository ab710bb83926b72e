"""What the paper prints (InfiniteTalk, arXiv 2508.14033, Table 3): EMTD, 40 videos of real people, weights of 14 B.

Nothing that is measured here may be set beside these figures cell by cell: other people, other networks, other scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TITLE = "Table 3 of InfiniteTalk (arXiv 2508.14033): where references lie in training; EMTD"
FIGURES = ("FID ↓", "FVD ↓", "Sync-C ↑", "Sync-D ↓")
TABLE_3: Mapping[str, tuple[float, float, float, float]] = MappingProxyType({
    "M0": (32.69, 322.04, 8.51, 7.31), "M1": (32.21, 307.21, 7.96, 8.11), "M2": (42.17, 376.53, 8.23, 7.44),
    "M3": (32.55, 312.17, 8.60, 7.16)})
