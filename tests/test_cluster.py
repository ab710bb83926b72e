"""A real Kubernetes, named by KUBECONFIG: a catalog is dubbed by Jobs, a shard's pod evicted, a run cancelled.

docs/kubernetes.md lists what can be told about the cluster. Pods run the tests' fakes: a cluster needs neither weights
nor a GPU that computes, only nodes that offer one.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
import yaml

from models import tables as t
from models.pool import LIVE
from tasks.ledger import Ledger
from tests import fakes, s3_server
from tests.postgres_server import PostgresServer

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="KUBECONFIG names no cluster"),
    pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl, which applies the manifests, is not here"),
]
ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "infra" / "kubernetes"
GPU_RESOURCE = os.environ.get("CLUSTER_GPU_RESOURCE", "nvidia.com/gpu")
IMAGE = os.environ.get("CLUSTER_IMAGE", "infinidub-cpu:latest")
PYTHON = os.environ.get("CLUSTER_PYTHON", "/opt/venv/bin/python")
PREFECT = os.environ.get("CLUSTER_PREFECT", "http://prefect-server:4200/api")
FOLDER = os.environ.get("CLUSTER_FOLDER", "")
FAKES = ["fakes.py", "pulse.py", "clips.py", "site/sitecustomize.py", "site/slow_pulse.py"]
PATIENCE_S = 900
LEASE_S = 30
GONE_WITHIN_S = 60
"""A cancelled shard's pod: a heartbeat (a sixth of a lease), then 8 s."""
PODS_END_WITHIN_S = 90
"""When their namespace goes: their grace, and some seconds."""


def kubectl(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=PATIENCE_S,
                          check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments[:4])}: {done.stderr}"
    return done.stdout


def until(what: str, look: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not seen in time: {what}"
        time.sleep(1)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Cluster:
    """What was applied, and its database."""

    namespace: str
    ledger: Ledger
    catalog: str

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def start(self, **settings: Any) -> str:
        """Have the nightly deployment run, as a person would; the id of our run."""
        before = set(self.runs())
        name = f"start-{uuid.uuid4().hex[:8]}"
        job = yaml.safe_load(self.kubectl("get", "job", "register", "-o", "yaml"))
        template = {"metadata": {"labels": {"infinidub/role": "job"}}, "spec": job["spec"]["template"]["spec"]}
        template["spec"]["containers"][0] |= {"command": [*shlex.split(PYTHON), "-m", "prefect"], "args": [
            "deployment", "run", "localize-catalog/nightly", "--param", f"catalog={self.catalog}",
            "--param", f"settings={json.dumps(settings)}"]}
        self.kubectl("create", "-f", "-", stdin=json.dumps({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": template}}))
        found: set[str] = until("the run", lambda: set(self.runs()) - before)
        return found.pop()

    def runs(self) -> dict[str, str]:
        with self.ledger.session() as session:
            return {run.id: run.state for run in session.scalars(sa.select(t.Run).where(t.Run.command == "schedule"))}

    def attempts(self, run: str) -> list[t.ShardAttempt]:
        with self.ledger.session() as session:
            found = session.scalars(sa.select(t.ShardAttempt).where(t.ShardAttempt.run_id == run)
                                    .order_by(t.ShardAttempt.shard, t.ShardAttempt.attempt)).all()
            session.expunge_all()
            return list(found)

    def at_work(self, run: str) -> t.ShardAttempt | None:
        """An attempt in the middle: some chunks are made, and as many are left."""
        return next((one for one in self.attempts(run) if one.state == "running" and one.chunks >= 2
                     and one.chunks_total - one.chunks_done >= 4), None)

    def pod(self, attempt: t.ShardAttempt) -> str:
        return self.kubectl("get", "pods", "-o", "name", "--field-selector", "status.phase=Running", "-l",
                            f"prefect.io/flow-run-id={attempt.flow_run}").strip().removeprefix("pod/")

    def jobs(self, label: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "jobs", "-o", "json", "-l", label))["items"]
        return found

    def live(self) -> int:
        with self.ledger.session() as session:
            count = sa.select(sa.func.count()).select_from(t.ShardRow).where(t.ShardRow.state.in_(LIVE))
            return session.scalar(count) or 0


def shots(ledger: Ledger) -> dict[str, str]:
    """Recipe → hash of the result, of every shot that was made."""
    with ledger.session() as session:
        rows = session.execute(sa.select(t.Result.recipe, t.Result.artifact).where(t.Result.step == "generate.shot"))
        return dict(row.tuple() for row in rows)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    namespace, here = f"infinidub-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        database = os.environ.get("CLUSTER_DATABASE") or _own_database(stack)
        endpoint = os.environ.get("CLUSTER_STORE_ENDPOINT") or _own_store(stack)
        shared = Path(FOLDER) / namespace if FOLDER else None
        series = fakes.series((shared or here) / "catalogs", languages=["es", "fr"])
        if shared:
            here = shared / "overlay"
            here.mkdir()
            shared.chmod(0o777)  # whoever runs pods writes here
        overlay(here, namespace, endpoint, shared, series.parent)
        if shared:
            stack.callback(shutil.rmtree, shared, ignore_errors=True)
        stack.callback(subprocess.run, ["kubectl", "delete", "namespace", namespace, f"--timeout={PODS_END_WITHIN_S}s"],
                       stdout=subprocess.DEVNULL, check=False)  # before their database goes
        kubectl("create", "namespace", namespace)
        _secrets(namespace, database, shared or Path("/tmp"))
        kubectl("apply", "-k", str(here))
        kubectl("-n", namespace, "wait", "--for=condition=complete", "job/register", f"--timeout={PATIENCE_S}s")
        for name in ("prefect-server", "cpu-worker", "gpu-worker"):
            kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", f"--timeout={PATIENCE_S}s")
        yield Cluster(namespace, Ledger(database), str(series) if shared else "/catalogs/catalog.yaml")


def _own_database(stack: ExitStack) -> str:
    return stack.enter_context(PostgresServer()).create("infinidub")


def _own_store(stack: ExitStack) -> str:
    endpoint = stack.enter_context(s3_server.s3_server())
    s3_server.client(endpoint).create_bucket(Bucket="infinidub")
    return endpoint


def _secrets(namespace: str, database: str, folder: Path) -> None:
    """By their files' contents on stdin, so that no process list shows them."""
    keys = {name: os.environ.get(name, value) for name, value in s3_server.CREDENTIALS.items() if "KEY" in name}
    for name, values in {"infinidub": {"INFINIDUB_DATABASE": database, **keys},
                         "prefect-auth": {"string": f"admin:{uuid.uuid4().hex}"},
                         "prefect-database": {"url": f"sqlite+aiosqlite:///{folder / 'prefect.db'}"}}.items():
        kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}))


def overlay(here: Path, namespace: str, endpoint: str, shared: Path | None, catalogs: Path) -> None:
    """An overlay as anybody would write one: other names, sizes and volumes; and the fakes, by a ConfigMap."""
    settings = {
        "INFINIDUB_STORE": f"s3://infinidub/{namespace}", "INFINIDUB_STORE_ENDPOINT": endpoint,
        "INFINIDUB_ENGINES": json.dumps({"generator": "pulse"}), "INFINIDUB_LEASE_S": str(LEASE_S),
        "INFINIDUB_MULTI": "false", "PREFECT_API_URL": PREFECT, "TEST_FAKES": "1", "TEST_CHUNK_S": "3",
        "PYTHONPATH": str(ROOT / "tests" / "site") if shared else "/tests/tests/site"}
    if shared:
        settings |= {f"INFINIDUB_{name.upper()}": str(shared / name) for name in ("out", "state", "weights")}
        settings |= {"HOME": str(shared), "PREFECT_HOME": str(shared / "prefect")}
    (here / "settings.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    for file in [*(ROOT / "tests" / name for name in FAKES), *catalogs.iterdir()]:
        shutil.copy(file, here)  # a ConfigMap takes files of its overlay only
    tests = {"name": "tests", "configMap": {"name": "tests", "items": [
        {"key": Path(name).name, "path": f"tests/{name}"} for name in FAKES]}}
    mount = {"name": "tests", "mountPath": "/tests", "readOnly": True}
    empty = [{"name": name, "emptyDir": {}} for name in ("tmp", "state", "weights")]
    places = [{"name": "dubbed", "emptyDir": {}}, {"name": "catalogs", "configMap": {"name": "catalogs"}}]
    small = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
    common = {"namespace": namespace, "image": IMAGE, "command": f"{PYTHON} -m prefect flow-run execute",
              "folder": str(catalogs if shared else "/catalogs")}
    (here / "variables.yaml").write_text(yaml.safe_dump({
        "cpu": {**common, "service_account_token": True, "resources": small, "volumes": [*empty, *places, tests]},
        "gpu": {**common, "resources": {kind: {**one, GPU_RESOURCE: "1"} for kind, one in small.items()},
                "shard_command": f"{PYTHON} -m flows.cli shard work", "env": {"INFINIDUB_DEVICE": "cpu"},
                "volumes": [*empty, tests]}}))
    for kind in ("cpu", "gpu"):
        _template(here, kind, mount)
    name, _, tag = IMAGE.rpartition(":")
    program = shlex.split(PYTHON)
    (here / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": namespace,
        "resources": [os.path.relpath(MANIFESTS / "base", here.resolve())],
        "components": [os.path.relpath(MANIFESTS / "components" / "indexed-job", here.resolve())],
        "generatorOptions": {"disableNameSuffixHash": True},
        "configMapGenerator": [
            {"name": "settings", "behavior": "merge", "envs": ["settings.env"]},
            {"name": "job-templates", "behavior": "merge",
             "files": ["variables.yaml", "job-template-cpu.json", "job-template-gpu.json"]},
            {"name": "tests", "files": [Path(name).name for name in FAKES]},
            {"name": "catalogs", "files": [file.name for file in catalogs.iterdir()]}],
        "images": [{"name": "infinidub-cpu", "newName": name, "newTag": tag}],
        "patches": [
            {"target": {"kind": "PersistentVolumeClaim"},
             "patch": "$patch: delete\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: any}"},
            _patch("Deployment", ("replace", "containers/0/command", [*program, "-m", "prefect"])),
            _patch("Job", ("replace", "containers/0/command", [*program, "-m", "flows.cli"]),
                   ("add", "containers/0/volumeMounts/-", mount), ("add", "volumes/-", tests)),
            {"target": {"kind": "NetworkPolicy", "name": "database-and-store"}, "patch": json.dumps(
                [{"op": "remove", "path": "/spec/egress/0/ports"}])},  # whatever their ports are
            *(_without_containers(here, namespace, shared) if shared else [])]}))


def _patch(kind: str, *changes: tuple[str, str, Any], name: str = "") -> dict[str, Any]:
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps([
        {"op": what, "path": f"/spec/template/spec/{path}", "value": value} for what, path, value in changes])}


def _without_containers(here: Path, namespace: str, shared: Path) -> Iterator[dict[str, Any]]:
    """What pods need that are plain processes of one machine: files in place of mounts, and ports of their own."""
    port = urlsplit(PREFECT).port or 4200
    yield _patch("Job", ("replace", "containers/0/args", ["deploy", "--templates", str(here)]))
    yield _patch("Deployment", ("replace", "containers/0/args/5", str(port)), name="prefect-server")
    for name, container, taken, environment in (
            ("prefect-server", "server", port, {"HOME": shared, "PREFECT_HOME": shared / "prefect",
                                                "PREFECT_UI_STATIC_DIRECTORY": shared / "ui"}),
            *((f"{kind}-worker", "worker", at, {"PREFECT_WORKER_WEBSERVER_PORT": at,
                                                "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": namespace})
              for kind, at in (("cpu", free_port()), ("gpu", free_port())))):
        yield _patch("Deployment", ("replace", "containers/0/ports/0/containerPort", taken), name=name)
        yield {"patch": json.dumps({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"template": {"spec": {
                "containers": [{"name": container, "env": [{"name": one, "value": str(value), "valueFrom": None}
                                                           for one, value in environment.items()]}]}}}})}


def _template(here: Path, kind: str, mount: dict[str, Any]) -> None:
    """The pool's own template, with a place for the fakes."""
    template = json.loads((MANIFESTS / "base" / f"job-template-{kind}.json").read_text())
    container = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]
    container["volumeMounts"].append(mount)
    (here / f"job-template-{kind}.json").write_text(json.dumps(template))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """The database of the same catalog, dubbed by one process here."""
    folder = tmp_path_factory.mktemp("undisturbed")
    catalog = fakes.series(folder / "catalogs", languages=["es", "fr"])
    done = subprocess.run([sys.executable, "-m", "tests.fakes", "run", str(catalog), "--out", str(folder / "out"),
                           "--set", "engines.generator=pulse", "--set", "prefect=false", "--set", "multi=false"],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Ledger(f"sqlite:///{folder / 'out' / '.infinidub' / 'infinidub.db'}")


def test_a_catalog_is_dubbed_by_jobs_though_a_pod_is_evicted(cluster: Cluster, undisturbed: Ledger) -> None:
    run = cluster.start()
    victim = until("a shard at work", lambda: cluster.at_work(run))
    pod = cluster.pod(victim)
    cluster.kubectl("create", "--raw", f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction", "-f", "-",
                    stdin=json.dumps({"apiVersion": "policy/v1", "kind": "Eviction",
                                      "metadata": {"name": pod, "namespace": cluster.namespace}}))
    until("the end of the run", lambda: cluster.runs()[run] != "running")
    assert cluster.runs()[run] == "done"
    assert cluster.live() == 0
    evicted, *others = [one for one in cluster.attempts(run) if one.shard == victim.shard]
    assert evicted.state in {"returned", "lost"}
    assert others[-1].state == "done"
    assert sum(one.chunks for one in (evicted, *others)) <= others[-1].chunks_total + 1
    assert shots(cluster.ledger) == shots(undisturbed)  # bit for bit
    until("a run by its schedule", lambda: any(
        job["status"].get("succeeded") for job in cluster.jobs("prefect.io/deployment-name=reaper")))


def test_a_cancelled_run_frees_its_gpus(cluster: Cluster, tmp_path: Path) -> None:
    run = cluster.start(seed=7)
    victim = until("a shard at work", lambda: cluster.at_work(run))
    assert cluster.pod(victim)
    address = cluster.ledger.engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-m", "flows.cli", "cancel", run, "--state", str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, "INFINIDUB_DATABASE": address},
                          check=False)
    assert done.returncode == 0, done.stderr
    until("the pod's end", lambda: not cluster.pod(victim), GONE_WITHIN_S)
    assert cluster.runs()[run] == "cancelled"
    assert cluster.live() == 0


def test_shards_are_made_by_indexed_jobs(cluster: Cluster) -> None:
    cluster.kubectl("patch", "configmap", "settings", "-p", json.dumps({"data": {"INFINIDUB_DISPATCH": "job"}}))
    run = cluster.start(seed=8)
    until("the end of the run", lambda: cluster.runs()[run] != "running")
    assert cluster.runs()[run] == "done"
    assert {one.state for one in cluster.attempts(run)} == {"done"}

    def ended() -> list[dict[str, Any]]:
        found = cluster.jobs("infinidub/part=shards")
        return found if all(job["status"].get("succeeded") == job["spec"]["completions"] for job in found) else []

    names = {job["metadata"]["name"] for job in until("the end of the Jobs", ended)}
    assert {one.flow_run for one in cluster.attempts(run)} <= names
