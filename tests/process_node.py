"""A Kubernetes node whose pods are plain processes of this machine: no images, no container runtime, no kubelet.

    KUBECONFIG=… python -m tests.process_node --folder FOLDER

An API server, its controllers, a scheduler and this are a cluster for `pytest -m cluster`. It offers GPUs that are not
there, starts the container of each pod that is bound to it, says how it fares, and ends what is deleted: SIGTERM, then
SIGKILL after the grace period. Processes see this machine's files, no volumes; a service account is a KUBECONFIG.
FOLDER keeps their logs; what the node does is said on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException

LOOKS_EVERY_S = 0.5
BEATS_EVERY_S = 10
RESTARTS_WITHIN_S = 30
GRACE_S = 1
"""Where none is told."""
OVER = {"Succeeded", "Failed"}
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def say(words: str) -> None:
    os.write(1, f"{now()} {words}\n".encode())


class Node:
    """Each of its pods is looked after by an asyncio task."""

    def __init__(self, api: client.ApiClient, options: argparse.Namespace) -> None:
        self.core, self.server, self.options = client.CoreV1Api(api), api.configuration, options
        self.pods: dict[str, Pod] = {}

    async def register(self) -> None:
        name = self.options.name
        with suppress(ApiException):  # it is known already
            await self.core.create_node({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})

    async def beat(self) -> None:
        offers = {"cpu": "64", "memory": "256Gi", "pods": "100", "ephemeral-storage": "500Gi",
                  self.options.resource: str(self.options.gpus)}
        await self.core.patch_node_status(self.options.name, {"status": {
            "capacity": offers, "allocatable": offers, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Here", "lastHeartbeatTime": now()}]}})

    async def look(self) -> None:
        found = await self.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={self.options.name}")
        known = {pod.metadata.uid: pod for pod in found.items}
        for uid in self.pods.keys() - known.keys():
            self.pods.pop(uid).deleted.set()  # by force: nobody waits for its end
        for uid, pod in known.items():
            if uid not in self.pods and (pod.metadata.deletion_timestamp or pod.status.phase not in OVER):
                self.pods[uid] = Pod(self, pod)
            if uid in self.pods and pod.metadata.deletion_timestamp:
                self.pods[uid].grace_s = pod.metadata.deletion_grace_period_seconds or GRACE_S
                self.pods[uid].deleted.set()


class Pod:
    """One pod, from its start to its removal."""

    def __init__(self, node: Node, pod: Any) -> None:
        self.node, self.core, self.spec = node, node.core, pod.spec
        self.name, self.space, self.container = pod.metadata.name, pod.metadata.namespace, pod.spec.containers[0]
        self.metadata, self.deleted, self.restarts, self.grace_s = pod.metadata, asyncio.Event(), 0, GRACE_S
        self.task = asyncio.create_task(self.live())

    async def live(self) -> None:
        again = {"Always": lambda _code: True, "OnFailure": bool, "Never": lambda _code: False}
        try:
            environment, code = await self.environment(), 128
            if not self.metadata.deletion_timestamp:
                code = await self.run(environment)
            while again[self.spec.restart_policy](code) and not self.deleted.is_set():
                self.restarts += 1
                await self.report("Running", {"waiting": {"reason": "CrashLoopBackOff"}})
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.deleted.wait(), min(2**self.restarts, RESTARTS_WITHIN_S))
                if not self.deleted.is_set():
                    code = await self.run(environment)
        except (ApiException, OSError) as error:  # e.g. there is no such Secret, or program
            say(f"{self.name} does not start: {error}")
            code = 128
        await self.report("Failed" if code else "Succeeded", {"terminated": {
            "exitCode": 128 - code if code < 0 else code, "reason": "Error" if code else "Completed"}})
        await self.deleted.wait()
        with suppress(ApiException):  # it is gone
            await self.core.delete_namespaced_pod(self.name, self.space, grace_period_seconds=0)

    async def run(self, environment: dict[str, str]) -> int:
        """→ exit code, below 0 for a signal."""
        words = [*(self.container.command or []), *(self.container.args or [])]
        with (self.node.options.folder / f"{self.name}.{self.restarts}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *words, env=environment, cwd=self.container.working_dir or "/", stdout=log, stderr=log,
                start_new_session=True)
        say(f"{self.name} starts: {process.pid}")
        over, deleted = asyncio.create_task(process.wait()), asyncio.create_task(self.deleted.wait())
        ready = None
        while not over.done() and not deleted.done():
            if (is_ready := await self.ready()) != ready:
                ready = is_ready
                await self.report("Running", {"running": {"startedAt": now()}}, ready)
            await asyncio.wait({over, deleted}, timeout=None if ready else 1, return_when=asyncio.FIRST_COMPLETED)
        deleted.cancel()
        if not over.done():
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)  # to the first process alone, as a container's
            await asyncio.wait({over}, timeout=self.grace_s)
            say(f"{self.name} {'ends' if over.done() else 'is killed'} {time.monotonic() - began:.1f} s after SIGTERM")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the first process of a container all others end
        say(f"{self.name} ended: {await over}")
        return over.result()

    async def ready(self) -> bool:
        probe = self.container.readiness_probe
        if probe is None or not (get := probe.http_get):
            return True
        ports = {port.name: port.container_port for port in self.container.ports or []}
        with suppress(ClientError, TimeoutError, OSError):
            async with ClientSession(timeout=ClientTimeout(5)) as session, \
                    session.get(f"http://127.0.0.1:{ports.get(get.port, get.port)}{get.path}") as reply:
                return reply.status < 400
        return False

    async def report(self, phase: str, state: dict[str, Any], ready: bool = False) -> None:
        conditions = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
        with suppress(ApiException):  # it was deleted meanwhile, by force
            await self.core.patch_namespaced_pod_status(self.name, self.space, {"status": {
                "phase": phase, "hostIP": "127.0.0.1", "podIP": "127.0.0.1",
                "conditions": [{"type": one, "status": str(holds)} for one, holds in conditions.items()],
                "containerStatuses": [{
                    "name": self.container.name, "image": self.container.image, "imageID": "", "ready": ready,
                    "started": "running" in state, "restartCount": self.restarts, "state": state}]}})

    async def environment(self) -> dict[str, str]:
        given = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        for source in self.container.env_from or []:
            given |= await self.data(source.config_map_ref, source.secret_ref)
        for one in self.container.env or []:
            of, given[one.name] = one.value_from, one.value or ""
            if of and (ref := of.config_map_key_ref or of.secret_key_ref):
                given[one.name] = (await self.data(of.config_map_key_ref, of.secret_key_ref))[ref.key]
            elif of and of.field_ref:  # metadata.NAME, metadata.annotations['KEY']
                name, _, key = of.field_ref.field_path.removeprefix("metadata.").partition("['")
                value = getattr(self.metadata, name)
                given[one.name] = value[key.removesuffix("']")] if key else value
        if any(mount.mount_path == ACCOUNT for mount in self.container.volume_mounts or []):
            given["KUBECONFIG"] = await self.account()
        return given

    async def data(self, config_map: Any, secret: Any) -> dict[str, str]:
        if config_map:
            return (await self.core.read_namespaced_config_map(config_map.name, self.space)).data or {}
        held = (await self.core.read_namespaced_secret(secret.name, self.space)).data or {}
        return {name: base64.b64decode(value).decode() for name, value in held.items()}

    async def account(self) -> str:
        given = await self.core.create_namespaced_service_account_token(
            self.spec.service_account_name, self.space, {"spec": {"expirationSeconds": 86400}})
        file = self.node.options.folder / f"{self.name}.kubeconfig"
        file.touch(mode=0o600)
        cluster = {"server": self.node.server.host, "certificate-authority": self.node.server.ssl_ca_cert}
        file.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": given.status.token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]}))
        return str(file)


async def serve(options: argparse.Namespace) -> None:
    await config.load_kube_config()
    options.folder.mkdir(parents=True, exist_ok=True)
    async with client.ApiClient() as api:
        node, due = Node(api, options), 0.0
        await node.register()
        while True:
            with suppress(ApiException, ClientError, TimeoutError):  # it is asked again
                if time.monotonic() > due:
                    await node.beat()
                    due = time.monotonic() + BEATS_EVERY_S
                await node.look()
            await asyncio.sleep(LOOKS_EVERY_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.process_node", description="A node of plain processes.")
    parser.add_argument("--folder", type=lambda text: Path(text).absolute(), required=True, help="for their logs")
    parser.add_argument("--name", default="process-node")
    parser.add_argument("--resource", default="nvidia.com/gpu", help="what its GPUs are called")
    parser.add_argument("--gpus", type=int, default=2)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))
