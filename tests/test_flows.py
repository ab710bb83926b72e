"""The Prefect flows, as a deployment starts them: names, states, artifacts, and nothing secret in the parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from prefect.artifacts import Artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Completed, Failed
from prefect.testing.utilities import prefect_test_harness

from flows.catalog import localize_catalog, localize_episode, passed_on, rerun_language
from flows.cli import run_command
from flows.deploy import deploy_all
from flows.deployments import Deployments
from flows.jobs import job_from_json, job_to_json, video_job
from flows.settings import load_settings
from flows.shard import shard
from flows.upkeep import reap
from models import tables as t
from models.errors import InputError
from models.pool import Waiting
from tasks.ledger import Ledger
from tests import fakes

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        fakes.install_while(patch)
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        with prefect_test_harness(server_startup_timeout=120), temporary_settings(
                {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            before = dict(os.environ)
            yield
            for name in os.environ.keys() - before.keys():  # what starts a rerun makes Prefect quiet for its process
                del os.environ[name]
            os.environ.update(before)


@pytest.fixture(scope="module")
def dubbed(server: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], FlowRun]:
    """A catalog with one language that works and one that fails, its settings, and the flow run that dubbed it."""
    folder = tmp_path_factory.mktemp("flows")
    catalog = fakes.series(folder / "series", languages=["es", "it"])
    settings = {"out": str(folder / "out"), "engines.generator": "pulse", "multi": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFINIDUB_SECRETS__KEY", "hush-hush")
        localize_catalog(str(catalog), settings=settings, return_state=True)
    return catalog, settings, newest("localize-catalog")


def client() -> SyncPrefectClient:
    return get_client(sync_client=True)


def runs() -> list[FlowRun]:
    with client() as asking:
        return sorted(asking.read_flow_runs(), key=lambda run: run.created, reverse=True)


def newest(flow: str) -> FlowRun:
    with client() as asking:
        return next(run for run in runs() if asking.read_flow(run.flow_id).name == flow)


def named(name: str) -> FlowRun:
    return next(run for run in runs() if run.name == name)


def task_states(run: FlowRun) -> dict[str, str]:
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId

    with client() as asking:
        found = asking.read_task_runs(task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id])))
        return {one.name.partition(" ")[0]: str(one.state_name) for one in found}


def test_runs_are_named_after_episode_and_language(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    assert dubbed[2].name == "series/catalog.yaml"
    assert named("fake/e1").state_name == "Failed"
    assert named("fake/e1·es").state_name == "Completed"
    assert named("fake/e1·it").state_name == "Failed"


def test_one_failing_language_is_seen_as_such(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    assert dubbed[2].state_name == "Failed"
    assert dubbed[2].state is not None
    assert dubbed[2].state.message == "fake/e1·it: the fake translator has no Italian today. Try another"


def test_steps_are_tasks(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    shared, spanish = task_states(named("fake/e1")), task_states(named("fake/e1·es"))
    assert shared.items() >= dict.fromkeys(
        ("ingest", "shots", "transcribe", "speakers", "languages"), "Completed").items()
    assert spanish == dict.fromkeys(
        ("translate", "synthesize", "mix", "plan", "generate", "assemble", "sign", "inspect"), "Completed")
    assert task_states(named("fake/e1·it")) == {"translate": "Failed"}


def test_parameters_are_plain_and_hold_no_secret(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    for run in runs():
        assert "hush" not in json.dumps(run.parameters)
    assert named("fake/e1·es").parameters.items() >= {"episode": "fake/e1", "language": "es"}.items()


def test_artifacts_show_progress_timing_report_shots_and_matrix(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    progress, timing, report, shots, matrix = (Artifact.get(key) for key in (
        "fake-e1-es-progress", "fake-e1-es-timing", "fake-e1-es-report", "fake-e1-es-shots", "fake-status"))
    assert progress.data == 100
    rows = json.loads(timing.data)
    assert [row["line"] for row in rows] == ["L0001", "L0002", "L0003"]
    assert rows[0].items() >= {"text": "Buenos días.", "flags": ""}.items()
    assert "| back_wer | 0 |" in report.data
    assert "S0002" in report.data
    assert shots.data.startswith("data:image/jpeg;base64,/9j/")
    assert [(row["language"], row["state"].partition(" ")[0]) for row in json.loads(matrix.data)] == [
        ("es", "✓"), ("it", "✗")]


def test_the_run_is_tied_to_its_flow_run(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    _, settings, run = dubbed
    with Ledger(f"sqlite:///{settings['out']}/.infinidub/infinidub.db").session() as session:
        row = session.scalars(sa.select(t.Run)).one()
    assert (row.command, row.state, row.flow_run) == ("schedule", "failed", str(run.id))
    assert row.parameters["episodes"] == ["fake/e1"]


def test_reused_steps_are_seen_as_reused(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    catalog, settings, _ = dubbed
    state = localize_episode("fake/e1", ["es"], catalog=str(catalog), settings={**settings, "crf": 20},
                             return_state=True)
    assert state.is_completed()
    states = task_states(named("fake/e1·es"))
    assert states.items() >= {"synthesize": "Reused", "generate": "Reused", "assemble": "Completed"}.items()


def test_a_rerun_does_the_step_and_what_builds_on_it(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    catalog, settings, _ = dubbed
    state = rerun_language(str(catalog), "fake/e1", "es", from_step="mix", settings=settings, return_state=True)
    assert state.is_completed()
    assert newest("rerun-language").name == "fake/e1·es from mix"
    states = task_states(named("fake/e1·es"))
    assert states.items() >= {"translate": "Reused", "synthesize": "Reused", "mix": "Completed"}.items()


def test_what_is_complete_starts_no_flow(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    catalog, settings, _ = dubbed
    before = len(runs())
    state = localize_catalog(str(catalog), languages=["es"], settings=settings, return_state=True)
    assert state.is_completed()
    assert len(runs()) == before + 1


def test_bad_parameters_fail_with_one_line(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    state = localize_catalog("nowhere.yaml", settings=dubbed[1], return_state=True)
    assert state.is_failed()
    assert "nowhere.yaml: cannot be read" in str(state.message)


def test_a_rerun_of_one_line_is_what_redo_does(dubbed: tuple[Path, dict[str, Any], FlowRun]) -> None:
    catalog, settings, _ = dubbed
    state = rerun_language(str(catalog), "fake/e1", "es", line="L0002", text="Es vieja.",
                           settings={**settings, "check_speech": False}, return_state=True)
    assert state.is_completed()
    assert newest("rerun-language").name == "fake/e1·es line L0002"
    assert "Es vieja." in (Path(settings["out"]) / "fake/e1/es/e1.es.srt").read_text()
    state = rerun_language(str(catalog), "fake/e1", "es", line="L0099", text="No.", settings=settings,
                           return_state=True)
    assert state.is_failed()
    assert "fake/e1 has no line 'L0099'" in str(state.message)


def test_deployments_are_registered(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    monkeypatch.chdir(ROOT)
    names = deploy_all(load_settings(flags={"out": str(tmp_path)}))
    assert names == ["localize-catalog/nightly", "localize-episode/episode", "rerun-language/rerun-language",
                     "shard/gpu", "reap/reaper", "sweep/gc"]
    with client() as asking:
        nightly, episode, _, shard, reaper, _ = (asking.read_deployment_by_name(name) for name in names)
    assert [str(one.schedule.cron) for one in nightly.schedules] == ["0 2 * * *"]
    assert nightly.global_concurrency_limit is not None
    assert nightly.global_concurrency_limit.limit == 1
    assert episode.entrypoint == "flows.catalog.localize_episode"
    assert episode.job_variables["working_dir"] == shard.job_variables["working_dir"] == str(ROOT)
    assert not any(one.active for one in reaper.schedules)  # where nothing is dispatched, each run reaps for itself


def test_a_shard_is_a_flow_run_with_nothing_but_names_in_its_parameters(server: None, tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_SECRETS__KEY", "hush-hush")
    with client() as asking:
        flow = asking.create_flow_from_name("shard")
        asking.create_deployment(flow, "gpu", entrypoint="flows.shard.shard",
                                 parameter_openapi_schema={"type": "object", "properties": {}})
    waiting = [Waiting(f"shard-{n}", 2, "s/e", "es", 60.0, 0) for n in (1, 2)]
    pool, settings = Deployments(), {"lease_s": 3}
    started = pool.submit(waiting, "", settings)
    assert list(started) == [("shard-1", 2), ("shard-2", 2)]
    assert pool.submit(waiting, "", settings) == started  # the same attempt is never started twice
    first, second = started.values()
    with client() as asking:
        run = asking.read_flow_run(UUID(first))
    assert run.parameters == {"shard_id": "shard-1", "attempt": 2, "config": "", "settings": settings}
    assert run.name == "s/e·es shard-1 2"
    with pytest.raises(InputError, match="does not belong where others can read it"):
        pool.submit(waiting, "", {"secrets.key": "hush-hush"})
    assert pool.final([first, second, "a-job", str(UUID(int=7))]) == {"a-job", str(UUID(int=7))}
    pool.cancel([first, "a-job", str(UUID(int=7))])
    assert first in pool.final([first, second])


def test_a_language_waits_for_its_review_and_goes_on_when_its_time_is_over(server: None, tmp_path: Path) -> None:
    catalog = fakes.series(tmp_path / "series", languages=["es"], review=True)
    settings = {"out": str(tmp_path / "out"), "multi": False}
    state = localize_catalog(str(catalog), settings=settings, return_state=True)
    assert (state.is_completed(), state.message) == (True, "0 delivered; 1 awaiting review")
    language = named("fake/e1·es")
    assert (language.state_name, str(language.state and language.state.message)[:15]) == (
        "AwaitingReview", "awaiting review")
    assert "infinidub review approve fake/e1 --lang es" in Artifact.get("fake-e1-es-review").data
    with client() as asking:
        flow = asking.create_flow_from_name("localize-episode")
        asking.create_deployment(flow, "episode", entrypoint="flows.catalog.localize_episode",
                                 parameter_openapi_schema={"type": "object", "properties": {}})
    ledger = Ledger(f"sqlite:///{tmp_path}/out/.infinidub/infinidub.db")
    with ledger.session() as session:
        session.execute(sa.update(t.Review).values(deadline=t.clock() - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
        done = reap(settings=settings, return_state=True)
    assert "fake/e1·es was not reviewed in time: flow run " in str(done.message)
    run = named("fake/e1·es reviewed")
    assert run.parameters.items() >= {"episode": "fake/e1", "languages": ["es"], "catalog": str(catalog.resolve()),
                                      "settings": settings}.items()
    assert run.state_name == "Scheduled"


def test_parameters_are_checked_before_anything_begins() -> None:
    given: dict[str, Any] = {"catalog": "c.yaml", "episode": "harbor-lights/s01e01", "language": "PT-br"}
    assert rerun_language.validate_parameters(given)["language"] == "pt-BR"
    for wrong, words in (({"language": "../../es"}, "no language tag"), ({"episode": "a/../../b"}, "pattern"),
                         ({"episode": "/etc/x"}, "pattern"), ({"from_step": 3}, "string")):
        with pytest.raises(ParameterTypeError, match=words):
            rerun_language.validate_parameters(given | wrong)
    for wrong in ({"languages": ["es", "x\n"]}, {"episodes": [".."]}):
        with pytest.raises(ParameterTypeError):
            localize_catalog.validate_parameters({"catalog": "c.yaml"} | wrong)


def test_a_job_in_parameters_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    job: dict[str, Any] = {"id": "e1", "video": "e1.mp4", "languages": ["ES"]}
    assert job_from_json(job, tmp_path).languages == ("es",)
    for wrong in ({"id": "../e1"}, {"languages": ["../es"]}, {"video": 7}, {"out": "/etc", "id": "e1\n"}):
        with pytest.raises(InputError):
            job_from_json(job | wrong, tmp_path)


def test_a_file_whose_name_has_no_letter_of_ours_gets_an_id_that_is_one(tmp_path: Path) -> None:
    (tmp_path / "灯台.mp4").touch()
    job = video_job(tmp_path / "灯台.mp4", ["es"], tmp_path, excerpt="0:00-0:12")
    assert job_from_json(job_to_json(job), tmp_path).id == "video.0-00-0-12"


def test_a_language_that_an_episode_has_not_is_refused(server: None, dubbed: tuple[Path, dict[str, Any], FlowRun],
                                                       ) -> None:
    catalog, settings, _ = dubbed
    state = localize_episode("fake/e1", ["fr"], catalog=str(catalog), settings=settings, return_state=True)
    assert state.is_failed()
    assert "is not dubbed into fr. There are: es, it" in str(state.message)


def test_a_completed_language_whose_state_came_back_without_its_result_is_done() -> None:
    passed_on(Completed())
    with pytest.raises(InputError, match="no such voice"):
        passed_on(Failed(data=InputError("no such voice")))


def test_a_server_that_is_away_is_no_fault_of_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = fakes.series(tmp_path / "series")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert run_command(["run", str(catalog), "--out", str(tmp_path / "out"), "--generator", "pulse"]) == 5
    assert "Prefect's server failed: Failed to reach API at http://127.0.0.1:9/api" in capsys.readouterr().err


def test_a_shard_flow_that_was_overtaken_completes(server: None, tmp_path: Path) -> None:
    state = shard("shard-x", 1, settings={"state": str(tmp_path)}, return_state=True)
    assert (state.is_completed(), state.name) == (True, "Superseded")


def test_importing_the_flows_loads_no_model_library() -> None:
    heavy = {"torch", "torchaudio", "onnxruntime", "faster_whisper", "ctranslate2", "whisperx", "TTS", "transformers",
             "dlib", "cv2"}
    program = f"import flows.catalog, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"
