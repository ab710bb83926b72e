"""Shards by Indexed Jobs: one Kubernetes Job starts many processes, and each takes shards until none waits.

A flow run for each shard can be seen and cancelled by itself, and costs 9–14 s of a pod and a few calls of Prefect's
server; past some hundred shards this is cheaper. The pods are those of the GPU pool's base job template, so that its
GPU, tolerations, queue and volumes hold here too.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flows.options import refuse_secrets
from models.errors import InfrastructureError, InputError, SetupError
from models.pool import Waiting
from models.recipe import sha256

if TYPE_CHECKING:
    from kubernetes_asyncio.client import BatchV1Api, V1Job

TRIES_PER_INDEX = 2
"""Of a process that ended badly by itself; an evicted pod is replaced and counts for nothing."""
USAGE = 2
"""Exit code of `infinidub` for bad settings or a lacking engine: trying again on another node changes nothing."""
LABEL = {"infinidub/part": "shards"}
T = TypeVar("T")


@dataclass(frozen=True)
class IndexedJobs:
    """A `Submitter`: as many processes as shards wait, `slots` at most; what waits beyond that is asked for again."""

    template: Mapping[str, Any]
    """The GPU pool's base job template, as Prefect keeps it."""
    slots: int
    """Processes at once: the number of GPUs to use."""

    @classmethod
    def of_pool(cls, pool: str, slots: int) -> IndexedJobs:
        """With the template that a work pool was registered with.

        Args:
            pool: Its name.
            slots: Processes at once.

        Raises:
            InputError: It is no pool of Kubernetes Jobs, or there is none of that name.
            InfrastructureError: Prefect's server cannot be asked.
        """
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        try:
            with get_client(sync_client=True) as client:
                found = client.read_work_pool(pool)
        except ObjectNotFound:
            raise InputError(f"there is no work pool {pool!r}", where="gpu_pool",
                             hint="Register it: infinidub deploy --templates infra/kubernetes/base") from None
        except Exception as error:  # httpx's, and Prefect's own
            raise InfrastructureError(f"Prefect's server cannot be asked ({type(error).__name__})",
                                      where="PREFECT_API_URL") from error
        if found.type != "kubernetes":
            raise InputError(f"work pool {pool!r} starts no Kubernetes Jobs ({found.type})", where="gpu_pool",
                             hint="Set dispatch to prefect, or register the pool with --templates")
        return cls(found.base_job_template, slots)

    def submit(self, waiting: Sequence[Waiting], config: str,
               settings: Mapping[str, Any]) -> dict[tuple[str, int], str]:
        """Start one Job with a process for each attempt, as far as there are slots.

        Which process takes which shard is settled in the queue. Attempts for which none was started are not in the
        answer; processes that are at work already may take them meanwhile.
        """
        return _in_cluster(lambda batch: self._submit(batch, waiting, config, settings)) if waiting else {}

    def cancel(self, names: Collection[str]) -> None:
        """Nothing: a Job is shared by many shards; the process of a cancelled one learns it from its next heartbeat."""

    def final(self, names: Collection[str]) -> set[str]:
        """Those of `names` that have ended, or are not known any more."""
        if not names:
            return set()
        alive = _in_cluster(self._alive)
        return {name for name in names if name not in alive}

    async def _submit(self, batch: BatchV1Api, waiting: Sequence[Waiting], config: str,
                      settings: Mapping[str, Any]) -> dict[tuple[str, int], str]:
        from kubernetes_asyncio.client.exceptions import ApiException

        busy = sum(_processes(job) for job in (await self._alive(batch)).values())
        taken = list(waiting)[:max(0, self.slots - busy)]
        if not taken:
            return {}
        job = indexed_job(self.template, [(one.shard, one.attempt) for one in taken], config, settings)
        name = job["metadata"]["name"]
        try:
            await batch.create_namespaced_job(job["metadata"]["namespace"], cast(Any, job))  # plain JSON does, too
        except ApiException as error:
            if error.status != HTTPStatus.CONFLICT:  # asked twice for the same attempts
                raise
        return {(one.shard, one.attempt): name for one in taken}

    async def _alive(self, batch: BatchV1Api) -> dict[str, V1Job]:
        """Name → Job that has not ended."""
        selector = ",".join(f"{key}={value}" for key, value in LABEL.items())
        namespace = self.template["variables"]["properties"]["namespace"]["default"]
        found = await batch.list_namespaced_job(namespace, label_selector=selector)
        return {job.metadata.name: job for job in found.items if not _ended(job)}


def indexed_job(template: Mapping[str, Any], attempts: Sequence[tuple[str, int]], config: str,
                      settings: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a Job with an index for each attempt.

    Args:
        template: Base job template of the GPU pool.
        attempts: (shard, attempt); they give the Job its name, so that asking twice starts one.
        config: Path of the settings file in the pods, '' for none.
        settings: Dotted name → value over it.

    Raises:
        InputError: The settings hold a secret, or the template is none of ours.
    """
    from prefect.utilities.templating import apply_values

    refuse_secrets(settings)
    values = {name: one["default"] for name, one in template["variables"]["properties"].items()
              if one.get("default") is not None}
    if "shard_command" not in values:
        raise InputError("its base job template has no variable 'shard_command'", where="gpu_pool",
                         hint="Register it: infinidub deploy --templates infra/kubernetes/base")
    configuration: dict[str, Any] = apply_values(dict(template["job_configuration"]), values)
    job: dict[str, Any] = configuration["job_manifest"]
    metadata, spec = job["metadata"], job["spec"]
    del metadata["generateName"], spec["backoffLimit"]  # the limit for each index takes its place
    metadata["name"] = "shards-" + sha256(json.dumps(attempts).encode())[:20]
    metadata["labels"] = {**metadata.get("labels", {}), **LABEL}
    spec |= {
        "completionMode": "Indexed", "completions": len(attempts), "parallelism": len(attempts),
        "backoffLimitPerIndex": TRIES_PER_INDEX,
        "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"containerName": "prefect-job", "operator": "In",
                                                    "values": [USAGE]}}]},
    }
    pod = spec["template"]["spec"]
    del pod["parallelism"], pod["completions"]  # Prefect wants them there; they belong to the Job
    pod["containers"][0] |= {
        "args": [*shlex.split(values["shard_command"]), *([f"--config={config}"] if config else []),
                 *(f"--set={name}={json.dumps(value)}" for name, value in _flat(settings))],
        "env": [{"name": name, "value": value} for name, value in
                {**configuration["env"], **values.get("env", {})}.items()]}
    return job


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", value


def _processes(job: V1Job) -> int:
    """How many of a Job's processes run, or are still to be started."""
    done = (job.status.succeeded or 0) + len(_indexes(job.status.failed_indexes))
    return max(int(job.spec.completions or 0) - done, 0)


def _indexes(text: str | None) -> list[int]:
    """'1,3-5' → [1, 3, 4, 5], as Kubernetes writes indexes."""
    spans = [part.partition("-") for part in (text or "").split(",") if part]
    return [index for first, _, last in spans for index in range(int(first), int(last or first) + 1)]


def _ended(job: V1Job) -> bool:
    return any(one.type in {"Complete", "Failed"} and one.status == "True" for one in job.status.conditions or ())


def _in_cluster(call: Callable[[BatchV1Api], Awaitable[T]]) -> T:
    """What a call to the API server answers: the one of this pod, or of KUBECONFIG."""
    try:
        from aiohttp import ClientError
        from kubernetes_asyncio import client, config
        from kubernetes_asyncio.client.exceptions import ApiException
    except ModuleNotFoundError:
        raise SetupError("Kubernetes' client library is not installed", where="dispatch = job",
                         hint="pip install 'infinidub[kubernetes]'") from None

    async def ask() -> T:
        try:
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await config.load_kube_config()
        async with client.ApiClient() as api:
            return await call(client.BatchV1Api(api))

    try:
        return asyncio.run(ask())
    except ApiException as error:
        raise InfrastructureError(f"Kubernetes refused: {error.status} {error.reason}", where="Indexed Job",
                                  hint="Rights of the run's service account: infra/kubernetes/components/indexed-job"
                                  if error.status == HTTPStatus.FORBIDDEN else "") from None
    except (OSError, ClientError, config.ConfigException) as error:
        raise InfrastructureError(f"Kubernetes cannot be reached ({type(error).__name__})", where="KUBECONFIG") \
            from error
