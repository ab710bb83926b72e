"""Deployments of prefect.yaml, and the work pools that they run on, registered with a real Prefect server."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY as HEARTBEAT
from prefect.states import Running
from prefect.testing.utilities import prefect_test_harness

from flows.deploy import deploy_all, process_pools
from flows.indexed_job import IndexedJobs
from flows.settings import load_settings
from flows.upkeep import crash, reap, sweep
from models.errors import InputError

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "infra" / "kubernetes" / "base"
NAMES = ["localize-catalog/nightly", "localize-episode/episode", "rerun-language/rerun-language", "shard/gpu",
         "reap/reaper", "sweep/gc"]
POOLS = {"cpu_pool": "cpu", "gpu_pool": "gpu", "dispatch": "prefect"}


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        with prefect_test_harness(server_startup_timeout=120), temporary_settings({HEARTBEAT: None}):
            patch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
            patch.chdir(ROOT)
            yield


def client() -> SyncPrefectClient:
    return get_client(sync_client=True)


@pytest.fixture(scope="module")
def registered(server: None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Everything, as on a cluster: pools of Kubernetes Jobs, shards dispatched."""
    out = tmp_path_factory.mktemp("out")
    return deploy_all(load_settings(flags={"out": str(out), **POOLS}), TEMPLATES)


# -- on a cluster -----------------------------------------------------------------------------------------------------


def test_pools_and_deployments_of_a_cluster_are_registered(registered: list[str]) -> None:
    assert registered == NAMES
    with client() as asking:
        found = {name: asking.read_deployment_by_name(name) for name in NAMES}
        pools = {name: asking.read_work_pool(name) for name in ("cpu", "gpu")}
    assert {name: one.work_pool_name for name, one in found.items()} == {
        name: "gpu" if name == "shard/gpu" else "cpu" for name in NAMES}
    assert [pool.type for pool in pools.values()] == ["kubernetes", "kubernetes"]
    limits = pools["gpu"].base_job_template["variables"]["properties"]["resources"]["default"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    [every_minute] = found["reap/reaper"].schedules
    assert every_minute.active
    [nightly] = found["localize-catalog/nightly"].schedules
    assert (nightly.schedule.cron, nightly.schedule.timezone) == ("0 2 * * *", "Europe/Berlin")
    assert nightly.parameters == {"catalog": "examples/harbor-lights/catalog.yaml"}
    assert not any(one.pull_steps for one in found.values())


def test_an_event_asks_for_a_language_once_more(registered: list[str]) -> None:
    with client() as asking:
        rerun = asking.read_deployment_by_name("rerun-language/rerun-language")
        [automation] = asking._client.post("/automations/filter", json={}).json()
    assert automation["trigger"]["expect"] == ["infinidub.rerun.requested"]
    [action] = automation["actions"]
    assert (action["type"], action["deployment_id"]) == ("run-deployment", str(rerun.id))
    assert "event.payload.language" in json.dumps(action["parameters"]["language"])


def test_pools_of_processes_leave_others_what_they_are(registered: list[str]) -> None:
    process_pools(["cpu", "processes", "processes"], os.environ)
    with client() as asking:
        assert [asking.read_work_pool(name).type for name in ("cpu", "processes")] == ["kubernetes", "process"]
    with pytest.raises(InputError, match="starts no Kubernetes Jobs"):
        IndexedJobs.of_pool("processes", 3)


def test_indexed_jobs_are_those_of_the_pool(registered: list[str]) -> None:
    assert IndexedJobs.of_pool("gpu", 3).template["variables"]["properties"]["shard_command"]["default"]
    with pytest.raises(InputError, match="there is no work pool 'tpu'"):
        IndexedJobs.of_pool("tpu", 3)


def test_templates_want_two_pools(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both pools are called 'local'"):
        deploy_all(load_settings(flags={"out": str(tmp_path)}), TEMPLATES)


# -- upkeep -----------------------------------------------------------------------------------------------------------


def test_a_reaper_ends_what_prefect_takes_for_running() -> None:
    with client() as asking:
        lost, fine = (asking.create_flow_run(sweep, name=name, state=Running()) for name in ("lost", "fine"))
        assert crash([str(lost.id), str(uuid.uuid4()), "shards-of-a-job"]) == 1
        assert asking.read_flow_run(lost.id).state_name == "Crashed"
        assert asking.read_flow_run(fine.id).state_name == "Running"
    assert crash([str(lost.id)]) == 0


def test_a_reaper_closes_runs_whose_process_died(tmp_path: Path) -> None:
    from tasks.ledger import Ledger

    settings = {"out": str(tmp_path), "lease_s": 1}
    assert reap(settings=settings, return_state=True).is_completed()
    ledger = Ledger(load_settings(flags=settings).database.get_secret_value())
    ledger.begin_run("run", {}, {}, lease_s=-1)
    state = reap(settings=settings, return_state=True)
    assert str(state.message).startswith("1 runs were dead")


def test_sweeping_says_what_it_removed(tmp_path: Path) -> None:
    state = sweep(dry_run=True, settings={"out": str(tmp_path)}, return_state=True)
    assert state.is_completed()
    assert "would go" in str(state.message)


def test_upkeep_takes_no_secret() -> None:
    state = reap(settings={"secrets.webhook": "http://x"}, return_state=True)
    assert state.is_failed()
    assert "does not belong where others can read it" in str(state.message)
