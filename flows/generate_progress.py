"""How far `generate` is, on stderr: a bar, or without a terminal a line every now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flows.show import QUIET_S, clock, stderr


class Watch:
    """Is told of chunks and steps, and says them; once a chunk was made also how long the others will take."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task
        self._begun = self._said = time.monotonic()
        self._first: int | None = None
        self._done, self._of = 0, 1

    def chunk(self, done: int, of: int) -> None:
        """So many chunks are there; the first call says with how many it begins."""
        begins = self._first is None
        self._first = done if self._first is None else self._first
        self._done, self._of = done, of
        self._bars.update(self._task, completed=done, total=of, text=f"chunk {done} of {of}{self._left(0)}")
        if not begins or done:
            self._say(f"  chunk {done} of {of}{self._left(0)}")

    def step(self, step: int, of: int) -> None:
        """So many steps of the next chunk are done."""
        text = f"chunk {self._done + 1} of {self._of}, step {step} of {of}{self._left(step / of)}"
        self._bars.update(self._task, completed=self._done + step / of, text=text)
        if time.monotonic() - self._said >= QUIET_S:
            self._say(f"  {text}")

    def _left(self, part: float) -> str:
        """An estimate by the chunks that were made, with `part` of the next."""
        made, left = self._done - (self._first or 0), self._of - self._done - part
        if not made or left <= 0:
            return ""
        return f", about {clock((time.monotonic() - self._begun) / (made + part) * left)} left"

    def _say(self, text: str) -> None:
        if not stderr.is_terminal:
            self._said = time.monotonic()
            stderr.print(text, highlight=False, soft_wrap=True)


@contextmanager
def watching() -> Iterator[Watch]:
    """A watch, with its bar on the terminal."""
    with Progress(TextColumn("  {task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"),
                  TimeElapsedColumn(), console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        yield Watch(bars, bars.add_task("generating", total=1, text=""))
