"""Manifests, job templates and images: valid on every Kubernetes we name, and no more rights than needed."""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun

from flows.deploy import KINDS, deploy_all, job_templates
from flows.indexed_job import IndexedJobs, indexed_job
from flows.settings import load_settings
from models.errors import InfrastructureError, InputError
from models.pool import Waiting
from tests import fakes
from tests.test_cluster import overlay

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "infra" / "kubernetes"
VERSIONS = [f"1.{minor}" for minor in range(30, 37)]
OVERLAYS = ["base", "overlays/laptop", "overlays/gpu-pool"]
NO_MANIFEST = {"kustomization.yaml", "variables.yaml"}
SECRETS = {"infinidub", "prefect-auth", "prefect-database"}

Manifest = dict[str, Any]


def manifests(file: Path) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(file.read_text()) if one]


def written() -> list[Manifest]:
    """Every manifest as it lies there, before any overlay."""
    return [one for file in sorted(FOLDER.rglob("*.yaml")) if file.name not in NO_MANIFEST for one in manifests(file)]


@functools.cache
def _built(overlay: str) -> str:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not here: overlays are not put together, their files are still looked at")
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER / overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(overlay: str) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(_built(overlay)) if one]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for one in manifests:
        if one["kind"] in {"Deployment", "Job"}:
            yield one["metadata"].get("name", one["metadata"].get("generateName")), one["spec"]["template"]["spec"]


def rendered(kind: str, values: dict[str, Any] | None = None, folder: Path = FOLDER / "base") -> Manifest:
    """The Job that a worker would start for a flow run, as Prefect puts it together."""
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = job_templates(folder)[kind]
    made = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(
        template, values or {}, client=object()))  # nothing in it is asked of a server
    made.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), name="brisk-otter", flow_id=uuid.uuid4()))
    job: Manifest = copy.deepcopy(made.job_manifest)
    pod = job["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)  # Prefect's quirk: a server drops them
    return job


def indexed(shards: int, settings: dict[str, Any] | None = None) -> Manifest:
    return indexed_job(job_templates(FOLDER / "base")["gpu"], [(f"s{n}", 1) for n in range(shards)], "",
                       settings or {})


@pytest.fixture(scope="module", autouse=True)
def schemas() -> Iterator[None]:
    """Each schema is read once, not once a manifest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes_validate.utils, "schema_contents",
                      functools.cache(kubernetes_validate.utils.schema_contents))
        yield


# -- valid ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str) -> None:
    jobs = [rendered(kind) for kind in KINDS] + [indexed(3)]
    assert len(written()) > 20
    for one in written() + jobs:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_put_together_validly(overlay: str) -> None:
    known = {json.dumps(one, sort_keys=True) for one in written()}
    changed = [one for one in built(overlay) if json.dumps(one, sort_keys=True) not in known]
    for version in (VERSIONS[0], VERSIONS[-1]):
        for one in changed:
            kubernetes_validate.validate(one, version, strict=True)
    assert all(one["metadata"].get("namespace", "infinidub") == "infinidub" for one in built(overlay))


@pytest.mark.parametrize("containers", [True, False])
def test_the_overlay_of_the_cluster_test_is_valid(tmp_path: Path, containers: bool) -> None:
    here, catalogs = tmp_path / "overlay", tmp_path / "catalogs"
    here.mkdir()
    catalog = fakes.series(catalogs)
    overlay(here, "infinidub-trial", "http://127.0.0.1:9", None if containers else tmp_path, catalog.parent)
    everything = built(str(here))
    for one in everything:
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    assert {one["metadata"].get("namespace") for one in everything} <= {"infinidub-trial", None}
    assert not [one for one in everything if one["kind"] == "PersistentVolumeClaim"]
    assert set(job_templates(here)) == set(KINDS)
    jobs = [rendered(kind, folder=here) for kind in KINDS]
    for one in jobs:
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
        assert one["metadata"]["namespace"] == "infinidub-trial"
    size = max(len(json.dumps(one)) for one in everything)
    assert size < 1_048_576, "no API server takes a ConfigMap as large as that"


def test_a_wrong_field_is_found() -> None:
    one = next(one for one in written() if one["kind"] == "Deployment")
    one["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", ["overlays/laptop", "overlays/gpu-pool"])
def test_names_that_are_referred_to_exist(overlay: str) -> None:
    everything = built(overlay)
    there = {(one["kind"], one["metadata"]["name"]) for one in everything}
    folder = FOLDER / overlay
    jobs = [_with(folder, kind) for kind in KINDS]
    for name, pod in pods(everything + jobs + manifests(FOLDER / "pull-weights.yaml")):
        assert ("ServiceAccount", pod["serviceAccountName"]) in there, name
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there, name
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there, name
        for source in pod["containers"][0].get("envFrom", []):
            assert "configMapRef" not in source or ("ConfigMap", source["configMapRef"]["name"]) in there
        if "priorityClassName" in pod:
            assert ("PriorityClass", pod["priorityClassName"]) in there


def _with(folder: Path, kind: str) -> Manifest:
    """The Job of a pool under an overlay's variables."""
    values = yaml.safe_load((folder / "variables.yaml").read_text()).get(kind, {})
    return rendered(kind, values)


# -- safe -------------------------------------------------------------------------------------------------------------


def everything_that_runs() -> list[tuple[str, Manifest]]:
    return list(pods(written() + [rendered(kind) for kind in KINDS] + [indexed(2)]))


@pytest.mark.parametrize(("name", "pod"), everything_that_runs(), ids=[name for name, _ in everything_that_runs()])
def test_containers_may_do_nothing_but_their_work(name: str, pod: Manifest) -> None:
    assert pod["securityContext"].items() >= {
        "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}.items()
    assert pod["enableServiceLinks"] is False  # their variables would be taken for settings
    assert pod.get("automountServiceAccountToken") is name.endswith("-worker")
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"]["memory"]
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert "/tmp" in writable
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_rights_are_these_and_no_more() -> None:
    rights = {one["metadata"]["name"]: {(group, resource): tuple(rule["verbs"]) for rule in one["rules"]
                                        for group in rule["apiGroups"] for resource in rule["resources"]}
              for one in written() if one["kind"] == "Role"}
    assert rights == {
        "worker": {("batch", "jobs"): ("create", "get", "list", "watch", "delete"),
                   ("", "pods"): ("get", "list", "watch"), ("", "pods/log"): ("get",), ("", "events"): ("list",)},
        "indexed-jobs": {("batch", "jobs"): ("create", "get", "list")}}
    bound = {one["metadata"]["name"]: [subject["name"] for subject in one["subjects"]]
             for one in written() if one["kind"] == "RoleBinding"}
    assert bound == {"worker": ["cpu-worker", "gpu-worker"], "indexed-jobs": ["cpu-job"]}
    assert not [one for one in written() if one["kind"].startswith("ClusterRole")]


def test_nobody_is_reached_that_is_not_named() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests(FOLDER / "base" / "network-policies.yaml")}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert [name for name, spec in policies.items() if "ingress" in spec] == ["prefect-server"]
    roles = {"prefect-server", "worker", "job"}
    labels = [one["spec"]["template"]["metadata"]["labels"]["infinidub/role"] for one in
              written() + [rendered(kind) for kind in KINDS] + [indexed(2)] if one["kind"] in {"Deployment", "Job"}]
    assert set(labels) == roles


def test_secrets_come_by_reference() -> None:
    text = "\n".join(file.read_text() for file in FOLDER.rglob("*") if file.is_file())
    assert not re.search(r"kind:\s*Secret\b", text)
    assert not re.search(r"(?i)(password|token|secret|api_?key)[a-z_]*\"?\s*[:=]\s*[\"']?[A-Za-z0-9+/]{12,}", text)
    assert not re.search(r"://[^/\s:]+:[^/\s@]+@", text)
    named = set(re.findall(r"secret(?:Key)?Ref\"?: \{\"?name\"?: ([a-z-]+)", text)) | set(
        re.findall(r'"secretRef": \{\s*"name": "([a-z-]+)"', text))
    assert named == SECRETS
    for kind in KINDS:
        container = rendered(kind)["spec"]["template"]["spec"]["containers"][0]
        assert {"secretRef": {"name": "infinidub"}} in container["envFrom"]
        assert all("SECRET" not in one["name"] and "DATABASE" not in one["name"] for one in container["env"])


# -- what a flow run gets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_evicted_flow_run_is_not_started_again_by_anybody_else(kind: str) -> None:
    job = rendered(kind)
    env = {one["name"]: one.get("value") for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "relinquish"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert job["metadata"]["labels"]["infinidub/role"] == "job"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["prefect", "flow-run", "execute"]


def test_only_shards_get_a_gpu() -> None:
    def limits(kind: str) -> Manifest:
        limits: Manifest = rendered(kind)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        return limits

    assert limits("gpu")["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in limits("cpu")
    pod = rendered("gpu")["spec"]["template"]["spec"]
    assert {"name": "INFINIDUB_DEVICE", "value": "cuda"} in pod["containers"][0]["env"]
    assert {volume["name"] for volume in pod["volumes"]} == {"tmp", "state", "weights"}
    assert next(one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "weights")["readOnly"]


def test_variables_say_what_nodes_are_like() -> None:
    given = {"node_selector": {"gpu": "h100"}, "priority_class_name": "low", "runtime_class_name": "nvidia",
             "queue": "dubbing", "resources": {"limits": {"amd.com/gpu": "1"}}, "command": "python -m prefect go"}
    job = rendered("gpu", given)
    pod = job["spec"]["template"]["spec"]
    assert (pod["nodeSelector"], pod["priorityClassName"], pod["runtimeClassName"]) == (
        {"gpu": "h100"}, "low", "nvidia")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "dubbing"
    assert pod["containers"][0]["resources"] == {"limits": {"amd.com/gpu": "1"}}
    assert pod["containers"][0]["args"] == ["python", "-m", "prefect", "go"]
    plain = rendered("gpu")
    assert "kueue.x-k8s.io/queue-name" not in plain["metadata"]["labels"]
    assert "priorityClassName" not in plain["spec"]["template"]["spec"]


def test_an_overlays_variables_become_defaults() -> None:
    job = _with(FOLDER / "overlays" / "laptop", "gpu")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert not any("gpu" in name for name in container["resources"]["limits"])
    assert {"name": "INFINIDUB_DEVICE", "value": "cpu"} in container["env"]
    assert "relinquish" in {one["value"] for one in container["env"]}


@pytest.mark.parametrize(("variables", "words"), [
    ("gpu: {nodeselector: {}}", "gpu.nodeselector: the template has no such variable"),
    ("tpu: {}", "no pool 'tpu'"),
    ("gpu: {tolerations: {a: b}}", "gpu.tolerations: is no array"),
    ("gpu: [1]", "no table of pools"),
    ("gpu: {", "neither YAML nor JSON"),
])
def test_bad_variables_are_named(tmp_path: Path, variables: str, words: str) -> None:
    for kind in KINDS:
        shutil.copy(FOLDER / "base" / f"job-template-{kind}.json", tmp_path)
    (tmp_path / "variables.yaml").write_text(variables)
    with pytest.raises(InputError, match=words):
        job_templates(tmp_path)


def test_a_registration_that_hangs_is_an_error_of_the_infrastructure(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr("flows.deploy.PATIENCE_S", 0.01)
    with pytest.raises(InfrastructureError, match="prefect work-pool did not end within"):
        deploy_all(load_settings(flags={"out": str(tmp_path)}))


# -- Indexed Jobs -----------------------------------------------------------------------------------------------------


def test_an_indexed_job_starts_a_process_for_each_shard() -> None:
    job = indexed(7, {"prompt": "a \"b\" c", "options": {"infinitetalk": {"steps": 4}}, "seed": 3})
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 7, 7)
    assert "backoffLimit" not in spec
    assert spec["backoffLimitPerIndex"] == 2
    ignored, failed = spec["podFailurePolicy"]["rules"]
    assert (ignored["action"], ignored["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (failed["action"], failed["onExitCodes"]["values"]) == ("FailIndex", [2])
    assert spec["template"]["spec"]["containers"][0]["args"] == [
        "infinidub", "shard", "work", r'--set=prompt="a \"b\" c"', "--set=options.infinitetalk.steps=4", "--set=seed=3"]
    assert "infinidub/part" in job["metadata"]["labels"]


def test_the_same_attempts_are_the_same_job() -> None:
    assert indexed(3)["metadata"]["name"] == indexed(3)["metadata"]["name"]
    assert indexed(3)["metadata"]["name"] != indexed(4)["metadata"]["name"]
    assert "generateName" not in indexed(3)["metadata"]


def test_an_indexed_job_takes_no_secret() -> None:
    with pytest.raises(InputError, match="does not belong where others can read it"):
        indexed(1, {"secrets.key": "hush"})


class FakeCluster:
    """The two calls of the API server that Indexed Jobs need."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}

    async def create_namespaced_job(self, namespace: str, job: Manifest) -> None:
        from kubernetes_asyncio.client.exceptions import ApiException

        name = job["metadata"]["name"]
        if name in self.jobs:
            raise ApiException(status=409, reason="Conflict")
        self.jobs[name] = _live(name, job["spec"]["completions"])

    async def list_namespaced_job(self, namespace: str, label_selector: str) -> Any:
        assert (namespace, label_selector) == ("infinidub", "infinidub/part=shards")
        from types import SimpleNamespace

        return SimpleNamespace(items=list(self.jobs.values()))


def _live(name: str, completions: int) -> Any:
    from kubernetes_asyncio.client import V1Job, V1JobSpec, V1JobStatus, V1ObjectMeta, V1PodTemplateSpec

    spec = V1JobSpec(completions=completions, template=V1PodTemplateSpec())
    return V1Job(metadata=V1ObjectMeta(name=name), spec=spec, status=V1JobStatus())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr("flows.indexed_job._in_cluster", lambda call: asyncio.run(call(fake)))
    return fake


def waiting(count: int) -> list[Waiting]:
    return [Waiting(f"shard-{n}", 1, "s/e", "es", 10.0, 0) for n in range(count)]


def test_no_more_processes_are_started_than_there_are_slots(cluster: FakeCluster) -> None:
    jobs = IndexedJobs(job_templates(FOLDER / "base")["gpu"], slots=5)
    started = jobs.submit(waiting(3), "", {})
    assert set(started) == {(f"shard-{n}", 1) for n in range(3)}
    more = jobs.submit([Waiting(f"other-{n}", 1, "s/e", "fr", 10.0, 0) for n in range(4)], "", {})
    assert set(more) == {("other-0", 1), ("other-1", 1)}
    assert jobs.submit(waiting(1), "", {}) == {}
    first = cluster.jobs[started["shard-0", 1]]
    first.status.succeeded, first.status.failed_indexes = 1, "0,2"
    assert len(jobs.submit(waiting(9), "", {})) == 3


def test_asking_twice_for_the_same_attempts_starts_one_job(cluster: FakeCluster) -> None:
    jobs = IndexedJobs(job_templates(FOLDER / "base")["gpu"], slots=50)
    assert jobs.submit(waiting(3), "", {}) == jobs.submit(waiting(3), "", {})
    assert len(cluster.jobs) == 1


def test_jobs_that_ended_or_are_unknown_are_final(cluster: FakeCluster) -> None:
    from kubernetes_asyncio.client import V1JobCondition

    jobs = IndexedJobs(job_templates(FOLDER / "base")["gpu"], slots=50)
    alive, dead = (jobs.submit(waiting(n), "", {}).popitem()[1] for n in (1, 2))
    cluster.jobs[dead].status.conditions = [V1JobCondition(type="Failed", status="True")]
    assert jobs.final([alive, dead, "never-heard-of"]) == {dead, "never-heard-of"}
    assert jobs.final([]) == set()


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu", "speech", "generator"])
def test_images_are_made_of_what_is_there_and_locked(name: str) -> None:
    text = (ROOT / "infra" / "images" / f"{name}.Dockerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    copied = [line.split()[1:] for line in lines if line.startswith("COPY ") and "--from" not in line]
    kept = (ROOT / ".dockerignore").read_text().split()
    for *sources, _ in copied:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(f"!{source}" == line for line in kept), f"{source} is kept from the build by .dockerignore"
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    for line in lines:
        if "pip install" in line:
            assert "-c constraints.txt" in line or "--no-deps -r infra/extras/requirements.txt" in line
        assert not re.search(r"\b(curl|wget|git clone|ADD )\b", line)
    assert [line for line in lines if line.startswith("FROM")][-1].split()[1] in {
        "python:3.11-slim-bookworm", "${BASE}"}


def test_the_speech_image_leaves_the_packages_of_its_base_alone() -> None:
    def locked(file: str) -> dict[str, str]:
        lines = (ROOT / file).read_text().lower().replace("_", "-").splitlines()
        return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))

    base, speech = locked("constraints.txt"), locked("infra/extras/requirements.txt")
    shared = base.keys() & speech.keys()
    assert "sqlalchemy" in shared
    assert {name: speech[name] for name in shared} == {name: base[name] for name in shared}


def test_extras_of_images_exist() -> None:
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for file in (ROOT / "infra" / "images").glob("*.Dockerfile"):
        for extras in re.findall(r"'\.\[([a-z,]+)\]'", file.read_text()):
            assert set(extras.split(",")) <= set(known)
