"""The verb `bench engine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.options import Json, answer
from flows.show import stderr
from models.errors import InputError, SetupError

Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto: a GPU if there is one.")]
Folder = Annotated[Path | None, typer.Option("--out", metavar="DIR", show_default=False,
                                             help="Folder for the figures as JSON and Markdown.")]
Pairs = Annotated[int, typer.Option(help="On a CPU: how often the forward and its products are timed in turns.")]


def bench_engine(device: Device = "auto", out: Folder = None, pairs: Pairs = 21, as_json: Json = False) -> int:
    """Measure how fast the InfiniteTalk engine is here, against what bounds it; no weights are needed."""
    from rich.markdown import Markdown

    try:
        from infinitetalk.bench import bench
        from infinitetalk.errors import BadInputError
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk",
                         hint="pip install 'infinidub[infinitetalk]'") from error
    try:
        figures, text = bench(device, out, lambda line: stderr.print(line, highlight=False), pairs=pairs)
    except BadInputError as error:
        raise InputError(error.what, where=error.where, hint=error.hint) from error
    answer(as_json, figures, Markdown(text))
    return 0
