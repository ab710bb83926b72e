"""The Prefect flow of one shard: what the deployment `shard/gpu` starts. `infinidub shard run --id` is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.gpu import work_off
from flows.options import refuse_secrets
from flows.settings import load_settings


@flow(name="shard")
def shard(shard_id: str, attempt: int, config: str = "", settings: dict[str, Any] | None = None) -> State[Any]:
    """Generate the shots of a shard that waits in the queue.

    Args:
        shard_id: Its id; everything else about it is in the database and the store.
        attempt: The one that this flow run was started for; a later one makes it end at once.
        config: Path of infinidub.toml on this machine.
        settings: Dotted name → value, over the file and the environment.
    """
    refuse_secrets(settings or {})
    done = work_off(load_settings(Path(config) if config else None, settings), shard=shard_id, attempt=attempt)
    if not done:
        return Completed(name="Superseded", message="another process has it, or it is over")
    words = "; ".join(f"{one.id}: {one.shots_run} shots made, {one.shots_reused} there already" for one in done)
    failed = [failure.error for one in done for failure in one.failed.values()]
    return Failed(message="; ".join(failed)) if failed else Completed(message=words)
