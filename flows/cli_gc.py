"""The verb `gc`: removes from the store what nothing needs any more."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from flows.options import Config, Json, Out, Set, State, answer, flags
from flows.settings import load_settings


def gc(dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
       unused_days: Annotated[int | None, typer.Option(
           min=1, help="Also results that no run used for so many days, unless a delivered file was made of them.",
           show_default=False)] = None,
       out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
       as_json: Json = False) -> int:
    """Remove from the store what nothing needs any more; what is being made stays."""
    from flows.wiring import open_workspace
    from tasks.gc import NEEDLESS, collect

    space = open_workspace(load_settings(config, flags(out, state, None, assignments)), existing=True)
    removed = collect(space.store, space.ledger, delete=not dry_run, unused_days=unused_days)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("would go" if dry_run else "removed", "MB", ""):
        table.add_column(title, justify="right" if title else "left")
    for one in removed:
        table.add_row(str(one.count), f"{one.bytes / 1e6:.1f}", one.kind)
    busy = NEEDLESS not in {one.kind for one in removed}
    answer(as_json, {"dry_run": dry_run, "busy": busy, "removed": [asdict(one) for one in removed]}, table,
           "runs or shards are under way: files that no result needs stay until none is" if busy else "")
    return 0
