"""Shards as flow runs of the deployment `shard/gpu`, one for each attempt. Prefect starts, shows and cancels them.

Only the synchronous client is used: it works in any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from flows.options import refuse_secrets
from models.errors import InfrastructureError, InputError
from models.pool import Waiting

SHARD = "shard/gpu"
PAGE = 200
"""Flow runs that Prefect's server names in one answer."""


class Deployments:
    """A `flows.pool.Submitter` on Prefect."""

    def __init__(self) -> None:
        """Needs a server that others can reach.

        Raises:
            InputError: None is known.
        """
        if not PREFECT_API_URL.value():
            raise InputError("shards are to be dispatched, and no Prefect server is known", where="PREFECT_API_URL",
                             hint="Set it, start one with `infinidub serve`, or set dispatch = \"here\"")

    def submit(self, waiting: Sequence[Waiting], config: str,
               settings: Mapping[str, Any]) -> dict[tuple[str, int], str]:
        """A flow run for each; Prefect hands back the one that is there already where the same is asked for twice."""
        refuse_secrets(settings)
        started: dict[tuple[str, int], str] = {}
        with _prefect() as client:
            deployment = _deployment(client, SHARD)
            for one in waiting:
                try:
                    run = _started(client, deployment, one, {"shard_id": one.shard, "attempt": one.attempt,
                                                                "config": config, "settings": dict(settings)})
                except (httpx.HTTPError, PrefectException):
                    if not started:
                        raise
                    break  # what was started must be noted
                started[one.shard, one.attempt] = str(run.id)
        return started

    def cancel(self, names: Collection[str]) -> None:
        """A run that was not started yet is cancelled at once, another's process gets SIGTERM."""
        with _prefect() as client:
            for run in _unfinished(client, names):
                with suppress(ObjectNotFound):
                    client.set_flow_run_state(run.id, Cancelling())

    def final(self, names: Collection[str]) -> set[str]:
        """Also those that Prefect does not know (any more)."""
        with _prefect() as client:
            return set(names) - {str(run.id) for run in _unfinished(client, names)}


def start(deployment: str, name: str, parameters: dict[str, Any]) -> str:
    """Start a flow run of a deployment and return its id.

    Args:
        deployment: `flow/deployment`.
        name: What the run is called.
        parameters: Plain JSON, without secrets.

    Raises:
        InputError: Prefect knows no such deployment, or a secret is named.
        InfrastructureError: Its server failed.
    """
    refuse_secrets(parameters.get("settings") or {})
    with _prefect() as client:
        known = _deployment(client, deployment)
        return str(client.create_flow_run_from_deployment(known, name=name, parameters=parameters).id)


def _deployment(client: SyncPrefectClient, name: str) -> UUID:
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound:
        raise InputError(f"Prefect knows no deployment {name}", where="PREFECT_API_URL",
                         hint="Register it with: infinidub deploy") from None


@contextmanager
def _prefect() -> Iterator[SyncPrefectClient]:
    try:
        with get_client(sync_client=True) as client:
            yield client
    except (httpx.HTTPError, PrefectException) as error:
        raise InfrastructureError(f"Prefect's server failed ({type(error).__name__})", where="PREFECT_API_URL",
                                  hint="Is it up?") from error


def _started(client: SyncPrefectClient, deployment: UUID, one: Waiting, parameters: dict[str, Any]) -> FlowRun:
    """The flow run of an attempt; one that has ended will not take the shard any more, and is followed by another.

    It ended too early, or is of another database that Prefect's server served: shards are named by their content.
    """
    key = f"{one.shard}-{one.attempt}"
    while True:
        run = client.create_flow_run_from_deployment(
            deployment, idempotency_key=key, name=f"{one.episode}·{one.language} {one.shard} {one.attempt}",
            parameters=parameters)
        if run.state is None or not run.state.is_final():
            return run
        key = f"{one.shard}-{one.attempt}-{run.id}"


def _unfinished(client: SyncPrefectClient, names: Iterable[str]) -> Iterator[FlowRun]:
    left = iter(sorted(set(names)))
    while page := list(islice(left, PAGE)):
        ids = [identity for name in page if (identity := flow_run_id(name))]
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=PAGE) \
                if ids else ():
            if run.state is None or not run.state.is_final():
                yield run


def flow_run_id(name: str) -> UUID | None:
    """None: the name of a Job, from when shards were started otherwise."""
    try:
        return UUID(name)
    except ValueError:
        return None
