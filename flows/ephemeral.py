"""Prefect's server of one run ends with that run, also where it was killed outright and could end nothing itself.

Prefect starts it as `python -m uvicorn`, which takes its event loop from wherever UVICORN_LOOP says: from here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

LOOK_S = 1.0
GRACE_S = 10.0
"""How long the server may take to end by itself."""


def loop() -> asyncio.AbstractEventLoop:
    """An event loop for uvicorn, in a process that is told to stop as soon as its parent is gone."""
    threading.Thread(target=_end_after, args=(os.getppid(),), name="parent", daemon=True).start()
    return asyncio.new_event_loop()


def _end_after(parent: int) -> None:
    """Asks, since the kernel's own signal (PR_SET_PDEATHSIG) comes when the *thread* ends that started the process."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)
