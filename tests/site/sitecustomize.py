"""With this folder on PYTHONPATH every Python process has the fakes for engines, however it was started.

For processes that others start: flow runs of a worker, Jobs of a cluster. INFINIDUB itself reads none of this.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if os.environ.get("TEST_FAKES"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    try:
        from tests import fakes
    except ImportError:  # an interpreter of another environment, e.g. a launcher's
        pass
    else:
        fakes.install()
        from models.engines import ENGINES

        ENGINES["generator"] = {**ENGINES["generator"], "pulse": "tests.site.slow_pulse:SlowPulse"}
